// Package existing is NATS servers as somebody else runs them, for tests of what uses a
// NATS cluster that is there already: one or three servers in this process, with or
// without JetStream, open to all or for those with credentials.
package existing

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Options of servers. The zero value is one server without JetStream that takes anybody.
type Options struct {
	Servers   int // default 1; more are a cluster
	JetStream bool
	Closed    bool  // for those with credentials (Servers.Credentials)
	Payload   int32 // largest message, bytes; default NATS's own, 1 MiB
	TLS       *tls.Config
}

// Servers are running servers. A test ends them.
type Servers struct {
	URLs []string // of each

	t       testing.TB
	all     []*server.Server
	options []*server.Options
	account nkeys.KeyPair // whose users may connect
}

// Start starts servers and returns when they take clients, and streams.
func Start(t testing.TB, o Options) *Servers {
	t.Helper()
	s := &Servers{t: t}
	n := max(o.Servers, 1)
	ports := freePorts(t, 2*n)
	var routes []*url.URL
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[n+i])})
	}
	dir := t.TempDir()
	for i := range n {
		opts := &server.Options{
			ServerName: fmt.Sprintf("n%d", i+1), Host: "127.0.0.1", Port: ports[i], NoLog: true, NoSigs: true, MaxPayload: o.Payload,
			JetStream: o.JetStream, StoreDir: filepath.Join(dir, fmt.Sprint(i)),
		}
		if n > 1 {
			opts.Cluster = server.ClusterOpts{Name: "others", Host: "127.0.0.1", Port: ports[n+i]}
			opts.Routes = routes
		}
		if o.TLS != nil {
			opts.TLS, opts.TLSConfig, opts.TLSTimeout = true, o.TLS, 10
		}
		if o.Closed {
			s.close(opts)
		}
		s.options, s.all = append(s.options, opts), append(s.all, nil)
		s.URLs = append(s.URLs, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	t.Cleanup(func() {
		for i := range s.all {
			s.Stop(i)
		}
	})
	for i := range n {
		s.Begin(i)
	}
	if o.JetStream {
		s.Ready()
	}
	return s
}

// Ready waits until all take streams.
func (s *Servers) Ready() {
	s.t.Helper()
	s.await("JetStream", func() bool {
		for _, one := range s.all {
			if !one.JetStreamEnabled() || len(s.all) > 1 && !one.JetStreamIsCurrent() {
				return false
			}
		}
		return true
	})
}

// Leader is which of them leads a stream.
func (s *Servers) Leader(stream string) (which int) {
	s.t.Helper()
	s.await("leader of "+stream, func() bool {
		for i, one := range s.all {
			if one != nil && one.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
				which = i
				return true
			}
		}
		return false
	})
	return which
}

// Join is what clients are given.
func (s *Servers) Join() string { return strings.Join(s.URLs, ",") }

// Begin starts one of them, again after Stop: at the same place, with what it had.
func (s *Servers) Begin(i int) {
	s.t.Helper()
	opts := *s.options[i] // a server changes its own
	one, err := server.NewServer(&opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.all[i] = one
	go one.Start()
	if !one.ReadyForConnections(20 * time.Second) {
		s.t.Fatalf("NATS server %d does not start", i)
	}
}

// Stop ends one of them.
func (s *Servers) Stop(i int) {
	if one := s.all[i]; one != nil {
		one.Shutdown()
		one.WaitForShutdown()
		s.all[i] = nil
	}
}

// await waits until something has become so.
func (s *Servers) await(what string, so func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !so(); {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("the NATS servers have no %s after 20 s", what)
		}
	}
}

// close makes a server take only users of one account.
func (s *Servers) close(o *server.Options) {
	operator, system := s.key(nkeys.CreateOperator), s.key(nkeys.CreateAccount)
	s.account = s.key(nkeys.CreateAccount)
	claims := jwt.NewAccountClaims(public(s.t, s.account))
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	resolver := &server.MemAccResolver{}
	for _, c := range []*jwt.AccountClaims{claims, jwt.NewAccountClaims(public(s.t, system))} {
		token, err := c.Encode(operator)
		if err == nil {
			err = resolver.Store(c.Subject, token)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{public(s.t, operator)}, resolver, public(s.t, system)
}

// Credentials writes those of a user whom the servers take, or of one of an account that
// they do not know.
func (s *Servers) Credentials(good bool) (file string) {
	s.t.Helper()
	by := s.account
	if !good {
		by = s.key(nkeys.CreateAccount)
	}
	user := s.key(nkeys.CreateUser)
	token, err := jwt.NewUserClaims(public(s.t, user)).Encode(by)
	var seed, text []byte
	if err == nil {
		seed, err = user.Seed()
	}
	if err == nil {
		text, err = jwt.FormatUserConfig(token, seed)
	}
	file = filepath.Join(s.t.TempDir(), "user.creds")
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *Servers) key(make func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	k, err := make()
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func public(t testing.TB, k nkeys.KeyPair) string {
	p, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all are held until all are chosen
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
