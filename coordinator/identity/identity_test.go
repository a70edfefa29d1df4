package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T, r Root, load func() (Root, error)) *Authority {
	t.Helper()
	a, err := NewAuthority(r, load, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func client(t *testing.T, k *Key, token Token) *tls.Config {
	t.Helper()
	c, err := k.Client(token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meet lets a client and a server shake hands, and the server say a word. It returns
// their errors.
func meet(server, client *tls.Config) (atServer, atClient error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a pipe has no room for an alert
	if err != nil {
		return err, err
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err, err
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		return err, err
	}
	defer a.Close()
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	s := tls.Server(a, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("welcome"))
		}
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	atClient = c.Handshake()
	if atClient == nil {
		var said []byte
		said, atClient = io.ReadAll(c)
		if string(said) == "welcome" {
			atClient = nil
		}
	}
	b.Close()
	atServer = <-done
	return atServer, atClient
}

func TestWhoIsLetIn(t *testing.T) {
	root := NewRoot()
	a := authority(t, root, nil)
	all := a.Server(Join, Read, Coordinator)
	join, read := a.Token(Join), a.Token(Read)
	wrong := join
	wrong.secret = bytes.Repeat([]byte{7}, secretBytes)
	claims := read
	claims.Role = Join              // the secret to read with, for more
	twin := authority(t, root, nil) // stands by, or was started anew
	_, peer, err := twin.Between()
	if err != nil {
		t.Fatal(err)
	}
	other := authority(t, NewRoot(), nil)
	_, otherPeer, err := other.Between()
	if err != nil {
		t.Fatal(err)
	}
	otherPeer.VerifyConnection = nil // it does not mind who answers
	nobody := common()
	nobody.InsecureSkipVerify = true
	for _, c := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		in     bool
	}{
		{"the token", all, client(t, NewKey(), join), true},
		{"after a restart", twin.Server(Join), client(t, NewKey(), join), true},
		{"the token to read with", all, client(t, NewKey(), read), true},
		{"one to read with, where it is not enough", a.Server(Join), client(t, NewKey(), read), false},
		{"another coordinator", all, peer, true},
		{"a replica, among coordinators", a.Server(Coordinator), client(t, NewKey(), join), false},
		{"a coordinator of another root", all, otherPeer, false},
		{"no certificate", all, nobody, false},
		{"a wrong secret", all, client(t, NewKey(), wrong), false},
		{"the secret of another role", all, client(t, NewKey(), claims), false},
		{"a ring's certificate", all, neighbour(t).Client("x"), false},
	} {
		atServer, atClient := meet(c.server, c.client)
		if c.in != (atServer == nil) || c.in != (atClient == nil) {
			t.Errorf("%s: the server says %v, the client %v", c.name, atServer, atClient)
		}
	}
}

func neighbour(t *testing.T) *Neighbours {
	t.Helper()
	n, err := NewKey().Neighbours()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Whoever joins tells nothing to somebody who is not its coordinator: neither one with
// another key, nor a replica that shows the authority's certificate, which it has seen.
func TestAFalseCoordinator(t *testing.T) {
	a, other := authority(t, NewRoot(), nil), authority(t, NewRoot(), nil)
	token := a.Token(Join)
	shows := other.cert
	shows.Certificate = [][]byte{other.cert.Certificate[0], a.cert.Certificate[1]}
	only := other.cert
	only.Certificate = a.cert.Certificate // without its key
	bare := a.cert
	bare.Certificate = other.cert.Certificate[:1]
	bare.PrivateKey = other.cert.PrivateKey
	for name, cert := range map[string]tls.Certificate{"another": other.cert, "not signed": shows, "copied": only, "alone": bare} {
		server := other.Server(Join)
		server.Certificates = []tls.Certificate{cert}
		saw := false
		server.VerifyConnection = func(tls.ConnectionState) error { saw = true; return nil }
		_, atClient := meet(server, client(t, NewKey(), token))
		if atClient == nil || saw {
			t.Errorf("%s: error %v; the client's certificate was seen: %v", name, atClient, saw)
		}
		var told *ServerError
		if name != "copied" && !errors.As(atClient, &told) {
			t.Errorf("%s: %v does not say that it is not the coordinator", name, atClient)
		}
	}
}

// The certificate of a member is of no use to who has not its key.
func TestACopiedCertificate(t *testing.T) {
	a := authority(t, NewRoot(), nil)
	c := client(t, NewKey(), a.Token(Join))
	c.Certificates[0].PrivateKey = NewKey().private
	if atServer, _ := meet(a.Server(Join), c); atServer == nil {
		t.Error("let in")
	}
}

// A new token ends the one before, for those who are not in yet.
func TestRotate(t *testing.T) {
	root := NewRoot()
	a := authority(t, root, func() (Root, error) { return root, nil })
	member, old := client(t, NewKey(), a.Token(Join)), a.Token(Join)
	if err, _ := meet(a.Server(Join), member); err != nil {
		t.Fatal(err)
	}
	root.Rotate(Join)
	a.mu.Lock()
	a.loaded = time.Time{}
	a.mu.Unlock()
	if a.Token(Join).String() == old.String() || a.Token(Read).String() != authority(t, root, nil).Token(Read).String() {
		t.Fatal("not the token to join with, or another one, has changed")
	}
	if err, _ := meet(a.Server(Join), client(t, NewKey(), old)); err == nil {
		t.Error("the old token lets somebody in")
	}
	if err, _ := meet(a.Server(Join), member); err != nil {
		t.Error("who was in is out:", err)
	}
	if err, _ := meet(a.Server(Join), client(t, NewKey(), a.Token(Join))); err != nil {
		t.Error("the new token:", err)
	}
}

func TestToken(t *testing.T) {
	token := authority(t, NewRoot(), nil).Token(Join)
	text := token.String()
	back, err := ParseToken(" " + text + "\n")
	if err != nil || back.String() != text {
		t.Fatalf("%v, %v", back, err)
	}
	for _, bad := range []string{"", "x", "mochi-join", text[:len(text)-1], text + "a", strings.ToUpper(text), "mochi-coordinator-" + text[len("mochi-join-"):], text + "-x"} {
		if _, err := ParseToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", bad, err)
		} else if len(bad) > 20 && strings.Contains(err.Error(), bad[20:]) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
}

// An id is proven by its key, and by no other.
func TestID(t *testing.T) {
	k, other := NewKey(), NewKey()
	id := k.ID("node 7.example/" + strings.Repeat("x", 100))
	if len(id) > 64 || strings.ContainsAny(id, " ./") {
		t.Fatalf("the id is %q", id)
	}
	may := func(id string) func(*tls.ConnectionState) bool {
		return func(s *tls.ConnectionState) bool { return Proves(s, id) }
	}
	us, err := k.Neighbours()
	if err != nil {
		t.Fatal(err)
	}
	them, err := other.Neighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
	}{
		{"both", us.Server(may(other.ID("b"))), them.Client(id), true},
		{"another server", us.Server(may(other.ID("b"))), them.Client(other.ID("c")), false},
		{"another client", us.Server(may(id)), them.Client(id), false},
		{"no suffix", us.Server(may(other.ID("b"))), them.Client("a"), false},
	} {
		atServer, atClient := meet(c.server, c.client)
		if ok := atServer == nil && atClient == nil; ok != c.ok {
			t.Errorf("%s: %v, %v", c.name, atServer, atClient)
		}
	}
	if Proves(nil, id) || Proves(&tls.ConnectionState{}, id) {
		t.Error("nothing proves an id")
	}
}

// Keys are for their owner alone; what others may read is not used.
func TestRootFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := LoadRoot(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	r, made, err := OpenRoot(dir)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	path := filepath.Join(dir, rootFile)
	for p, want := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, path: 0o600} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	if again, made, err := OpenRoot(dir); err != nil || made || again != r {
		t.Errorf("%v, %v, %v", again, made, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRoot(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that others may read: %v", err)
	}
	for _, text := range []string{"", "{", `{"root":"abc"}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil || os.Chmod(path, 0o600) != nil {
			t.Fatal(err)
		}
		if _, err := LoadRoot(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Who joins on the machine of a coordinator finds its token, as long as the folder is
// that user's alone.
func TestLocal(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	token := authority(t, NewRoot(), nil).Token(Join)
	joins := func() *Source { return &Source{Key: NewKey(), Joins: true} } // another process each time: one keeps its token
	if c, err := joins().Client("localhost:7"); c != nil || err != nil {
		t.Fatal(c, err)
	}
	l, err := Leave("0.0.0.0:7", token)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := joins().Token("localhost:7"); err != nil || got == nil || got.String() != token.String() {
		t.Error(got, err)
	}
	if got, err := joins().Token("localhost:8"); got != nil || err != nil {
		t.Error(got, err)
	}
	dir := filepath.Join(run, "mochi")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, _ := joins().Token("localhost:7"); got != nil {
		t.Error("taken from a folder that others can look into")
	}
	if _, err := Leave("0.0.0.0:7", token); err == nil {
		t.Error("left in a folder that others can look into")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Remove()
	if got, err := joins().Token("localhost:7"); got != nil || err != nil {
		t.Error(got, err)
	}
}

// What is given counts, and a token to read with does not join.
func TestSource(t *testing.T) {
	a := authority(t, NewRoot(), nil)
	path := filepath.Join(t.TempDir(), "token")
	s := &Source{Key: NewKey(), File: path, Text: a.Token(Read).String(), Joins: true}
	if err := s.Check(); err != nil {
		t.Error("a file that is yet to come:", err)
	}
	if _, err := s.Client("x:1"); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := WriteToken(path, a.Token(Read)); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "reads") {
		t.Error(err)
	}
	if err := WriteToken(path, a.Token(Join)); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Client("x:1"); err != nil || c == nil {
		t.Error(c, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

// A coordinator that starts again writes nothing of its keys: its disk may be full.
func TestKeysAreWrittenOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root := NewRoot()
	a, err := NewAuthority(root, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "join.token")
	write := func(r Root, token Token) (files []os.FileInfo) {
		t.Helper()
		if err := errors.Join(r.Save(dir), WriteToken(path, token)); err != nil {
			t.Fatal(err)
		}
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != 2 {
			t.Fatalf("%v, %v", all, err)
		}
		for _, one := range all {
			info, err := os.Stat(filepath.Join(dir, one.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, info)
		}
		return files
	}
	first, again := write(root, a.Token(Join)), write(root, a.Token(Join))
	root.Rotate(Join)
	if a, err = NewAuthority(root, nil, nil); err != nil {
		t.Fatal(err)
	}
	rotated := write(root, a.Token(Join))
	for i := range first {
		if !os.SameFile(first[i], again[i]) {
			t.Errorf("%s was written anew", first[i].Name())
		}
		if os.SameFile(first[i], rotated[i]) {
			t.Errorf("%s is the old one after a rotation", first[i].Name())
		}
	}
}
