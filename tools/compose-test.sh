#!/usr/bin/env bash
# Runs a cluster from docker-compose.yml and treats it badly: scale from 2 to
# 4 replicas, kill one, scale to 1, kill the coordinator. Passes
# when training goes on after each and the sample log has neither a gap nor a
# repeat. Needs a docker daemon and docker compose (v2) or docker-compose
# 1.29, and Go for the check of the log. Leaves nothing behind but the images
# that mochi's is made from.
#
#   bash tools/compose-test.sh         the image holds this machine's build of
#                                      mochi, where that can run in it
#   bash tools/compose-test.sh whole   the image is built as a user builds it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

docker version >/dev/null 2>&1 || { echo "compose test: no docker daemon answers (docker version)" >&2; exit 1; }
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif docker-compose version >/dev/null 2>&1; then
  compose=(docker-compose)
else
  echo "compose test: neither docker compose nor docker-compose is installed" >&2
  exit 1
fi

# The override for GPUs is read, with a device for each replica; no GPU is here
# to run it.
case $("${compose[@]}" -f docker-compose.yml -f docker-compose.gpu.yml config) in
  *devices:*'driver: nvidia'*) ;;
  *) echo "compose test: docker-compose.gpu.yml reserves no device" >&2; exit 1 ;;
esac

# A name of its own: a user's cluster on this machine stays as it is.
export COMPOSE_PROJECT_NAME=mochi-test-$$
export MOCHI_IMAGE=mochi:test-$$
export MOCHI_REPLICAS=2
# Small steps, four BatchNorm groups, and more epochs than the test waits for.
export MOCHI_FLAGS="--sample-log --batch 64 --bn-group 16 --queue 1024 --mochi 64,64,16
  --epochs 1000 --knn-every 0 --checkpoint-every 20 --min-replicas 1"

say() { printf 'compose test [%3ds]: %s\n' "$SECONDS" "$*"; }
finish() {
  local rc=$?
  trap - EXIT
  if [ $rc -ne 0 ]; then
    say "FAILED; the last lines of every container:"
    "${compose[@]}" logs --no-color --tail 40 2>&1 || true
    "${compose[@]}" ps || true
  fi
  "${compose[@]}" down -v --timeout 5 --remove-orphans >/dev/null 2>&1 || say "could not remove the containers of $COMPOSE_PROJECT_NAME"
  docker rmi -f "$MOCHI_IMAGE" >/dev/null 2>&1 || true
  exit $rc
}

say "building the image"
how=quick
if [ "${1:-}" = whole ]; then how=''; fi
bash tools/images/build.sh $how >"${TMPDIR:-/tmp}/$COMPOSE_PROJECT_NAME.log" 2>&1 ||
  { tail -n 40 "${TMPDIR:-/tmp}/$COMPOSE_PROJECT_NAME.log" >&2; exit 1; }
rm -f "${TMPDIR:-/tmp}/$COMPOSE_PROJECT_NAME.log"
trap finish EXIT
trap 'exit 130' INT TERM
deadline=$((SECONDS + 300))

containers() { "${compose[@]}" ps -q "$1" </dev/null; }
running() { containers "$1" | xargs -r docker inspect -f '{{if .State.Running}}{{.Id}}{{end}}' | sed '/^$/d'; }
status() { docker exec "$coordinator" mochi status --json 2>/dev/null </dev/null | tail -n 1 || true; }
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p"; } # field NAME <JSON

# reach WORLD: three more commits by WORLD replicas.
reach() {
  local world=$1 now='' step='' start=''
  while [ $SECONDS -lt $deadline ]; do
    now=$(status)
    if [ "$(field world <<<"$now")" = "$world" ]; then
      step=$(field step <<<"$now")
      start=${start:-$step}
      if [ "$step" -ge $((start + 3)) ]; then
        say "step $step, world $world, round $(field round <<<"$now")"
        return
      fi
    else
      start=''
    fi
    sleep 0.3 # between two questions
  done
  say "gave up waiting for $world replicas; the coordinator says: ${now:-nothing}"
  return 1
}
scale() { "${compose[@]}" up -d --no-build --scale "replica=$1" </dev/null >/dev/null 2>&1; }

say "starting one coordinator and two replicas"
"${compose[@]}" up -d --no-build </dev/null >/dev/null 2>&1
coordinator=$(containers coordinator)
reach 2
"${compose[@]}" exec -T coordinator mochi status </dev/null
test "$(docker exec "$coordinator" id -u)" != 0 || { say "the container runs as root"; exit 1; }

say "scaling to four"
scale 4
reach 4

say "killing one"
docker kill "$(running replica | tail -n 1)" >/dev/null
reach 3

say "scaling to one"
scale 1
reach 1

say "killing the coordinator and starting it again on its volume"
docker kill "$coordinator" >/dev/null
scale 1
reach 1

health=$(docker inspect -f '{{.State.Health.Status}}' "$coordinator" $(running replica) | tr '\n' ' ')
say "health: $health"
case $health in *unhealthy*) exit 1 ;; esac
docker exec "$coordinator" cat /state/samples.jsonl </dev/null | go run ./tools/checksamples -samples 60000 -
say "passed"
