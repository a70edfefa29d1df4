package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// On one machine a user needs to say nothing: a coordinator leaves its token where only
// that user can read it, under the addresses that lead to it, and whoever joins one of
// them finds it there.

// localDir is the folder of the tokens of this user's coordinators on this machine.
func localDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "mochi")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("mochi-%d", os.Getuid()))
}

// ownDir says why a folder is not this user's alone.
func ownDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Getuid() || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder that only this user can use: remove it", dir)
	}
	return nil
}

func localFile(address string) string {
	return filepath.Join(localDir(), strings.NewReplacer("/", "_", "%", "_").Replace(address)+".token")
}

// found is the token that a coordinator of this user left for an address, nil for none.
func found(address string) (*Token, error) {
	if ownDir(localDir()) != nil {
		return nil, nil
	}
	t, err := readToken(localFile(address))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return t, err
}

// Local are the tokens that a coordinator has left.
type Local struct{ files []string }

// Leave leaves a token for those of the same user who join at HOST:PORT, or at an address
// of this machine where the host is a wildcard.
func Leave(listen string, t Token) (*Local, error) {
	dir := localDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("leave the token for this machine: %w", err)
	}
	if err := ownDir(dir); err != nil {
		return nil, fmt.Errorf("leave the token for this machine: %w", err)
	}
	l := &Local{}
	for _, address := range meant(listen) {
		path := localFile(address)
		if err := WriteToken(path, t); err != nil {
			return l, err
		}
		l.files = append(l.files, path)
	}
	return l, nil
}

// Remove takes them away.
func (l *Local) Remove() {
	if l == nil {
		return
	}
	for _, path := range l.files {
		_ = os.Remove(path) // one that stays is of no use to anybody
	}
}

// Forget removes what an earlier coordinator left for an address.
func Forget(listen string) {
	if ownDir(localDir()) != nil {
		return
	}
	for _, address := range meant(listen) {
		_ = os.Remove(localFile(address))
	}
}

// meant are the addresses by which somebody on this machine may mean one listened on.
func meant(listen string) []string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && (err != nil || !ip.IsUnspecified()) {
		all := []string{listen}
		if err == nil && ip.IsLoopback() {
			all = append(all, net.JoinHostPort("localhost", port))
		}
		return all
	}
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	var all []string
	for _, h := range hosts {
		all = append(all, net.JoinHostPort(h, port))
	}
	return all
}
