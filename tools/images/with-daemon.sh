#!/usr/bin/env bash
# Runs a command with a docker daemon: the one that answers, or one that is
# started for it and ended after it. A daemon that was there is left alone.
#
#   bash tools/images/with-daemon.sh COMMAND [ARGUMENT…]
#
# Exits with the command's status. Where no daemon can be started it says why,
# shows the end of the daemon's log and exits with 69.
#
# The service is tried first, then the program itself. Sandboxes often have a
# service script that cannot work, no overlay file system or no iptables: the
# program is tried with fewer wishes each time.
set -uo pipefail

[ $# -gt 0 ] || { echo "usage: with-daemon.sh COMMAND [ARGUMENT…]" >&2; exit 2; }

PATH=$PATH:/sbin:/usr/sbin
patience=${MOCHI_DAEMON_PATIENCE:-30} # seconds a daemon has to answer
folder=''                             # of what is started here: log, pid file
daemon=''                             # process number of the dockerd started here
service=''                            # yes: the service was started here
child=''                              # process group of the command

say() { echo "docker daemon: $*" >&2; }
answers() { timeout 10 docker version >/dev/null 2>&1; }

# await ALIVE…: yes when a daemon answers; no when ALIVE fails, or out of patience.
await() {
  local until=$((SECONDS + patience))
  while ! answers; do
    "$@" 2>/dev/null || return 1
    [ $SECONDS -lt $until ] || return 1
    sleep 0.2 # between two questions
  done
}

end_daemon() {
  [ -n "$daemon" ] || return 0
  kill "$daemon" 2>/dev/null
  for _ in $(seq 100); do # it ends its containers first
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.2
  done
  kill -9 "$daemon" 2>/dev/null && say "process $daemon did not end by itself within 20 s, and was killed"
  wait "$daemon" 2>/dev/null
  daemon=''
}

finish() {
  local rc=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$child" ] && kill -0 -- "-$child" 2>/dev/null; then
    kill -TERM -- "-$child" 2>/dev/null
    for _ in $(seq 150); do # the command may have something to clear away
      kill -0 -- "-$child" 2>/dev/null || break
      sleep 0.2
    done
    kill -9 -- "-$child" 2>/dev/null
  fi
  [ -z "$service" ] || service docker stop >/dev/null 2>&1 || say "the service could not be stopped again"
  end_daemon
  # The log of a run that failed is kept: its place was said.
  if [ -n "$folder" ] && [ $rc -eq 0 ]; then rm -rf "$folder"; fi
  exit $rc
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

start_service() {
  command -v service >/dev/null || return 1
  service docker status >/dev/null 2>&1 && return 1 # it runs and does not answer: not ours to stop
  service docker start </dev/null >>"$folder/service.log" 2>&1 || return 1
  service=yes
  await true && return 0
  service docker stop >/dev/null 2>&1
  service=''
  return 1
}

# start_program OPTION…: a dockerd with its own pid file, so that the number
# left behind by one that was killed does not matter.
start_program() {
  say "starting dockerd${*:+ $*}, log in $folder/dockerd.log"
  printf '== dockerd %s\n' "$*" >>"$folder/dockerd.log"
  setsid dockerd --pidfile "$folder/dockerd.pid" "$@" </dev/null >>"$folder/dockerd.log" 2>&1 &
  daemon=$!
  await kill -0 "$daemon" && return 0
  if kill -0 "$daemon" 2>/dev/null; then say "it does not answer within $patience s"; else say "it ended at once"; fi
  end_daemon
  return 1
}

start() {
  if [ -n "${DOCKER_HOST:-}" ]; then
    say "DOCKER_HOST is set, and nothing answers at $DOCKER_HOST"
    return 1
  fi
  folder=$(mktemp -d "${TMPDIR:-/tmp}/mochi-docker.XXXXXX")
  if [ "$(id -u)" -ne 0 ]; then
    say "none answers; start one, or be a member of its group (this needs root)"
    return 1
  fi
  start_service && { say "the service was started"; return 0; }
  if ! command -v dockerd >/dev/null; then
    say "none answers and dockerd is not installed; bash tools/deps.sh images installs it"
    return 1
  fi
  start_program || start_program --storage-driver=vfs ||
    start_program --storage-driver=vfs --iptables=false --ip6tables=false && return 0
  say "could not be started; the end of $folder/dockerd.log:"
  tail -n 15 "$folder/dockerd.log" >&2
  return 1
}

command -v docker >/dev/null || { say "the client docker is not installed; bash tools/deps.sh images installs it"; exit 69; }
answers || start || exit 69

# In a process group of its own, so that all of it can be ended; waited for in
# the background, so that a signal is heard at once.
set -m
"$@" </dev/null &
child=$!
set +m
wait "$child"
exit $?
