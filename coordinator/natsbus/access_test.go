package natsbus_test

import (
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// guarded is a coordinator that lets in who has a token.
type guarded struct {
	*natsbus.Coordinator
	server    *natsbus.Server
	authority *identity.Authority
}

func secured(t *testing.T) guarded { return securedBy(t, time.Now) }

// securedBy tells a flood by a clock of the test's.
func securedBy(t *testing.T, now func() time.Time) guarded {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	a, err := identity.NewAuthority(identity.NewRoot(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0", Authority: a, Job: job})
	s := &store{saved: make(chan []byte, 8), files: map[string][]byte{"latest": []byte("state")}}
	return guarded{coordinator(t, natsbus.Clocked(natsbus.Options{Server: server}, now), s), server, a}
}

// options are those of a replica with a key and a token.
func (g guarded) options(k *identity.Key, role identity.Role) natsbus.Options {
	return natsbus.Options{
		Job: job, ID: k.ID("r"), URL: g.server.URL(),
		Access: &identity.Source{Key: k, Text: g.authority.Token(role).String()},
	}
}

// raw is a NATS client with a token that uses it as it likes.
func (g guarded) raw(t *testing.T, k *identity.Key, role identity.Role, name string) (*nats.Conn, chan error, error) {
	t.Helper()
	config, err := k.Client(g.authority.Token(role))
	if err != nil {
		t.Fatal(err)
	}
	faults := make(chan error, 64)
	inbox := (&identity.Source{Key: k}).Inbox()
	nc, err := nats.Connect(g.server.URL(), nats.Secure(config), nats.TLSHandshakeFirst(), nats.Name(name), nats.CustomInboxPrefix(inbox), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { faults <- err }))
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, faults, err
}

// listen hears what comes on a subject, as only the coordinator's process may.
func (g guarded) listen(t *testing.T, subject string) *nats.Subscription {
	t.Helper()
	user, password := g.server.Own()
	nc, err := nats.Connect("", nats.InProcessServer(g.server), nats.UserInfo(user, password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	sub, err := nc.SubscribeSync(subject)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// With its token a replica can do all that it needs.
func TestSecuredTraffic(t *testing.T) {
	g := secured(t)
	k := identity.NewKey()
	r := replica(t, g.options(k, identity.Join))
	id := k.ID("r")
	if err := r.Send(timeout(t), protocol.Message{Leaving: &protocol.Leaving{}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, g.Messages()); m.From != id || m.Leaving == nil {
		t.Errorf("%+v", m)
	}
	if err := g.Send(id, protocol.Message{Stop: &protocol.Stop{Reason: "x"}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, r.Messages()); m.Stop == nil {
		t.Errorf("%+v", m)
	}
	if state, err := r.Download(timeout(t), "latest"); err != nil || string(state) != "state" {
		t.Errorf("%q, %v", state, err)
	}
	if err := r.Upload(timeout(t), 3, []byte("mine")); err != nil {
		t.Error(err)
	}
	for _, role := range []identity.Role{identity.Join, identity.Read} {
		if s, err := natsbus.RequestStatus(timeout(t), g.options(identity.NewKey(), role)); err != nil || s.Step != 7 {
			t.Errorf("%s: %+v, %v", role, s, err)
		}
	}
	r.Close()
	for receive(t, g.Lost()) != id { // those who asked for the status have gone, too
	}
}

// Who has no token, or a wrong one, is refused with words that say what to do, and hears
// nothing from the server before.
func TestStrangers(t *testing.T) {
	g := secured(t)
	other, err := identity.NewAuthority(identity.NewRoot(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := g.authority.Token(identity.Join).String()
	end := "aaaa"
	if strings.HasSuffix(text, end) {
		end = "bbbb"
	}
	for name, c := range map[string]struct{ token, want string }{
		"no token":      {"", "MOCHI_TOKEN"},
		"a wrong one":   {text[:len(text)-4] + end, "does not take this token"},
		"of another":    {other.Token(identity.Join).String(), "not the coordinator that the token is of"},
		"not a token":   {"secret", "not a token"},
		"reads, at all": {g.authority.Token(identity.Read).String(), "reads the status only"},
	} {
		o := g.options(identity.NewKey(), identity.Join)
		o.Access = &identity.Source{Key: identity.NewKey(), Text: c.token, Joins: true}
		r, err := natsbus.ConnectReplica(timeout(t), o)
		if err == nil {
			r.Close()
			t.Errorf("%s: let in", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not contain %q", name, err, c.want)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.server.URL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, 512)
	if n, _ := conn.Read(heard); strings.ContainsAny(string(heard[:n]), "{}") {
		t.Errorf("a stranger heard %q", heard[:n])
	}
	select {
	case id := <-g.Lost():
		t.Errorf("%s counts as lost", id)
	case m := <-g.Messages():
		t.Errorf("heard %+v", m)
	default:
	}
}

// A token is not told to somebody who speaks in the clear where it should not.
func TestNotSecured(t *testing.T) {
	g := secured(t)
	open := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	o := g.options(identity.NewKey(), identity.Join)
	o.URL = open.URL()
	_, err := natsbus.ConnectReplica(timeout(t), o)
	var told *natsbus.ServerError
	if !errors.As(err, &told) || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("%v", err)
	}
}

// What a replica must not do with its token: each is refused, and nobody else notices.
func TestWhatAReplicaMustNot(t *testing.T) {
	g := secured(t)
	victim := identity.NewKey()
	r := replica(t, g.options(victim, identity.Join))
	k := identity.NewKey()
	id := k.ID("mallory")
	nc, faults, err := g.raw(t, k, identity.Join, id)
	if err != nil {
		t.Fatal(err)
	}
	refusedOne := func(what string) {
		t.Helper()
		if err := receive(t, faults); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, subject := range []string{
		protocol.CoordinatorSubject(job, victim.ID("r")), // speaks as another
		protocol.CheckpointSubject(job, victim.ID("r")),
		protocol.ReplicaSubject(job, victim.ID("r")), // as the coordinator
		protocol.GroupSubject(job),
		"mochi." + job + ".commits",
		"$JS.API.STREAM.DELETE.MOCHI_TEST_COMMITS",
		"$SYS.REQ.SERVER.PING",
	} {
		if err := nc.Publish(subject, []byte(`{"v":3,"from":"`+victim.ID("r")+`","failed":{"fatal":true}}`)); err != nil {
			t.Fatal(err)
		}
		refusedOne("publish " + subject)
	}
	for _, subject := range []string{">", "mochi.>", protocol.ReplicaSubject(job, victim.ID("r")), protocol.CoordinatorSubject(job, "*"), "_INBOX.>", "$SYS.>", "$JS.>"} {
		if _, err := nc.Subscribe(subject, func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		refusedOne("subscribe " + subject)
	}
	// A message that is its own, in which stands another's name, is its own.
	if err := nc.Publish(protocol.CoordinatorSubject(job, id), []byte(`{"v":3,"from":"`+victim.ID("r")+`","leaving":{}}`)); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, g.Messages()); m.From != id {
		t.Errorf("it speaks as %s", m.From)
	}
	// Nor may it greet for another: the answer could send that one home.
	for _, message := range []string{`{"v":3,"hello":{"id":"` + victim.ID("r") + `","binary":"other"}}`, `{"v":3,"failed":{"error":"after it"}}`} {
		if err := nc.Publish(protocol.CoordinatorSubject(job, id), []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	if m := receive(t, g.Messages()); m.Failed == nil {
		t.Errorf("a Hello of %s in the name of %s is heard", m.From, m.Hello.ID)
	}
	// Nor have the coordinator answer where it may not speak itself.
	for _, subject := range []string{protocol.StatusSubject(job), protocol.CheckpointSubject(job, id)} {
		for _, to := range []string{protocol.CoordinatorSubject(job, victim.ID("r")), protocol.ReplicaSubject(job, victim.ID("r")), "$JS.API.STREAM.DELETE.X"} {
			where := g.listen(t, to)
			if err := nc.PublishRequest(subject, to, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Request(protocol.StatusSubject(job), nil, 10*time.Second); err != nil { // answered after it
				t.Fatal(err)
			}
			if m, err := where.NextMsg(100 * time.Millisecond); err == nil {
				t.Errorf("asked by %s, the coordinator answers on %s: %q %.80q", subject, to, m.Header, m.Data)
			}
		}
	}
	// Under another's name nobody comes in, whatever the role, so nobody is lost by it.
	for _, role := range []identity.Role{identity.Join, identity.Read} {
		for _, name := range []string{victim.ID("r"), "bulk." + victim.ID("r"), "r", "", "mochi-monitor", "mochi-coordinator"} {
			if nc, _, err := g.raw(t, identity.NewKey(), role, name); err == nil {
				t.Errorf("connected as %q with the token to %s", name, role)
				nc.Close()
			}
		}
	}
	// The victim is where it was.
	if err := g.Send(victim.ID("r"), protocol.Message{Stop: &protocol.Stop{Reason: "true"}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, r.Messages()); m.Stop == nil || m.Stop.Reason != "true" {
		t.Errorf("the victim hears %+v", m)
	}
	for {
		select {
		case lost := <-g.Lost():
			if lost == victim.ID("r") {
				t.Error("the victim counts as lost")
			}
			continue
		default:
		}
		break
	}
}

// A connection that has ended without a word is replaced at once by a new one of the same
// key; the server does not keep the old one.
func TestTheSameKeyAgain(t *testing.T) {
	g := secured(t)
	k := identity.NewKey()
	id := k.ID("r")
	first, _, err := g.raw(t, k, identity.Join, id)
	if err != nil {
		t.Fatal(err)
	}
	ended := first.StatusChanged(nats.CLOSED)
	r := replica(t, g.options(k, identity.Join))
	if got := receive(t, g.Lost()); got != id {
		t.Errorf("lost %s", got)
	}
	receive(t, ended)
	if err := r.Send(timeout(t), protocol.Message{Leaving: &protocol.Leaving{}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, g.Messages()); m.From != id {
		t.Errorf("%+v", m)
	}
}

// Many ask for the status at a time: none of them takes the place of another.
func TestManyAskForTheStatus(t *testing.T) {
	g := secured(t)
	first, _, err := g.raw(t, identity.NewKey(), identity.Read, "mochi-status")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if s, err := natsbus.RequestStatus(timeout(t), g.options(identity.NewKey(), identity.Read)); err != nil || s.Step != 7 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	// Those who come and go under a name of their own are heard of, after the others.
	r := replica(t, g.options(identity.NewKey(), identity.Join))
	r.Close()
	receive(t, g.Lost())
	if _, err := first.Request(protocol.StatusSubject(job), nil, 10*time.Second); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

// However often the status is asked for, the coordinator looks now and then only.
func TestAStatusIsGoodForAWhile(t *testing.T) {
	server := start(t, natsbus.ServerOptions{Listen: "127.0.0.1:0"})
	c, err := natsbus.ConnectCoordinator(timeout(t), natsbus.Options{Job: job, Server: server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var looked atomic.Int64
	if err := c.Serve(func() protocol.Status { return protocol.Status{Step: looked.Add(1)} }, wanted, nil, nil); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	began := time.Now()
	for range 200 {
		if _, err := nc.Request(protocol.StatusSubject(job), nil, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n, most := looked.Load(), 1+int64(time.Since(began)/(50*time.Millisecond)); n > most {
		t.Errorf("looked %d times in %v", n, time.Since(began))
	}
}

// A member with a token that says more than any job needs is cut off; the others are heard.
// The clock stands still, so that what counts is how much it says, not how fast this machine is.
func TestAFloodOfAMember(t *testing.T) {
	at := time.Now()
	g := securedBy(t, func() time.Time { return at })
	k := identity.NewKey()
	flooder, _, err := g.raw(t, k, identity.Join, k.ID("r"))
	if err != nil {
		t.Fatal(err)
	}
	ended := flooder.StatusChanged(nats.CLOSED)
	go func() {
		junk := make([]byte, 512<<10)
		for flooder.Publish(protocol.CoordinatorSubject(job, k.ID("r")), junk) == nil {
		}
	}()
	receive(t, ended)
	if got := receive(t, g.Lost()); got != k.ID("r") {
		t.Errorf("lost %s", got)
	}
	other := identity.NewKey()
	r := replica(t, g.options(other, identity.Join))
	if err := r.Send(timeout(t), protocol.Message{Leaving: &protocol.Leaving{}}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, g.Messages()); m.From != other.ID("r") {
		t.Errorf("%+v", m)
	}
}
