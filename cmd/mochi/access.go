package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mochi/allreduce/natsring"
	"mochi/cmd/mochi/cli"
	"mochi/cmd/mochi/run"
	"mochi/coordinator/identity"
	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol/config"
)

const insecureFlag = "in the clear, without a token: whoever reaches the coordinator can join the job, read its state and end it; for networks that nobody else reaches"

// tokenFileVariable is the environment variable that stands for --token-file.
const tokenFileVariable = "MOCHI_TOKEN_FILE"

// identityDir is where a coordinator keeps its keys and tokens.
func identityDir(state string) string { return filepath.Join(state, "identity") }

// tokenFile is the file of a role's token in that folder.
func tokenFile(state string, r identity.Role) string {
	return filepath.Join(identityDir(state), string(r)+".token")
}

// guarding are the flags of a coordinator that say who may come.
type guarding struct {
	tokenFile, keys string
	cert, key, ca   string
	insecure        bool
	own             *identity.Certificate // of cert and key, nil for none
	given           func(string) bool
}

func (g *guarding) add(c *cli.Command) {
	g.given = c.Given
	c.StringVar(&g.tokenFile, "token-file", "", "`FILE` to write the token to that replicas join with, such as on a volume that they see; it is kept under --state in any case (default: the variable "+tokenFileVariable+")")
	c.StringVar(&g.keys, "keys", "", "`FILE` with the keys that tokens come from, of mochi token keys: the coordinators of a group share it, and one alone can start with it on an empty folder, with the same token (default: made at the first start, under --state)")
	c.StringVar(&g.cert, "tls-cert", "", "`FILE` with a certificate of your own (PEM, with what it is signed by) to show to those who join, instead of one of the coordinator's own making; they give its authority with --tls-ca, or trust the token")
	c.StringVar(&g.key, "tls-key", "", "`FILE` with the key of --tls-cert")
	c.StringVar(&g.ca, "tls-ca", "", "`FILE` with the authority (PEM) that the other coordinators' --tls-cert are signed by")
	c.BoolVar(&g.insecure, "insecure", false, insecureFlag)
}

// check loads the keys that there are already. A coordinator of a group must be given its
// keys: those that each made for itself would be of no use to the others.
func (g *guarding) check(f *cli.Faults, state string, group bool) (root *identity.Root) {
	if !g.given("token-file") && !g.insecure {
		g.tokenFile = os.Getenv(tokenFileVariable)
	}
	if g.cert != "" || g.key != "" {
		cert, err := identity.LoadCertificate(g.cert, g.key)
		f.AddErr("tls-cert", err)
		g.own = &identity.Certificate{Cert: cert}
	}
	if g.ca != "" {
		roots, err := identity.LoadRoots(g.ca)
		f.AddErr("tls-ca", err)
		if g.own == nil {
			f.Add("tls-ca", "is of no use without --tls-cert")
		} else {
			g.own.Roots = roots
		}
	}
	if g.insecure {
		if g.own != nil {
			f.Add("insecure", "does not go with --tls-cert")
		}
		if g.tokenFile != "" || g.keys != "" {
			f.Add("insecure", "goes neither with --token-file nor with --keys")
		}
		return nil
	}
	var r identity.Root
	var err error
	if g.keys != "" {
		r, err = identity.ReadRoot(g.keys)
	} else if r, err = identity.LoadRoot(identityDir(state)); errors.Is(err, fs.ErrNotExist) {
		if group {
			f.Add("keys", "missing: the coordinators of a group share their keys. Make them once with  mochi token keys FILE  and give FILE to all of them, or --insecure for a network that nobody else reaches")
		}
		return nil
	}
	if err != nil {
		f.AddErr("keys", err)
		return nil
	}
	return &r
}

// notWithNATS refuses the flags where NATS says who may come.
func (g *guarding) notWithNATS(f *cli.Faults) {
	for _, name := range []string{"token-file", "keys", "insecure", "tls-cert", "tls-key", "tls-ca"} {
		if g.given(name) {
			f.Add(name, "is for a coordinator that has a message server of its own; with --nats, the NATS servers say who may come (--nats-creds)")
		}
	}
}

// checkRingSecurity refuses what cannot be had where nobody has a token: given says that
// the setting was asked for as a flag.
func checkRingSecurity(f *cli.Faults, job config.Job, given, nats, insecure bool) {
	if !nats && !insecure || !given && job.Security() == config.SecurityTLS {
		return
	}
	why := "--insecure: without tokens"
	if nats {
		why = "--nats: without a coordinator's tokens"
	}
	if job.Security() == config.SecurityPlain {
		f.Add("ring-security", "plain does not go with %s replicas could be told no key that others do not hear, and gradients are in the clear as it is; leave the setting out", why)
	} else {
		f.Add("ring-security", "tls does not go with %s replicas cannot know each other, and gradients are in the clear; leave the setting out", why)
	}
}

// guard is how a running coordinator knows who may come; nil: everybody.
type guard struct {
	*identity.Authority
	listen, copy, state string
	log                 *slog.Logger

	mu    sync.Mutex
	local *identity.Local
	token string
	stop  chan struct{}
	owned sync.WaitGroup
}

// republishEvery is how often a coordinator looks whether its tokens were changed.
const republishEvery = 2 * time.Second

// open makes the keys that there were not, and leaves the tokens where they are looked
// for.
func (g *guarding) open(k *coordinating, root *identity.Root, p *run.Progress) (*guard, error) {
	if g.insecure {
		identity.Forget(k.listen)
		p.Say("NOT SECURED (--insecure): whoever reaches %s can join this job, read its state and end it", k.listen)
		return nil, nil
	}
	dir := identityDir(k.state)
	load := func() (identity.Root, error) { return identity.LoadRoot(dir) }
	first := root == nil
	switch {
	case g.keys != "":
		load = func() (identity.Root, error) { return identity.ReadRoot(g.keys) }
	case first:
		r := identity.NewRoot()
		root = &r
		fallthrough
	default:
		// What there is now counts: the token may have been changed since it was looked at.
		// There may be nothing: the folder may have been moved aside.
		now, err := identity.LoadRoot(dir)
		if err == nil {
			root, first = &now, false
		} else if errors.Is(err, fs.ErrNotExist) {
			err = root.Save(dir)
		}
		if err != nil {
			return nil, err
		}
	}
	a, err := identity.NewAuthority(*root, load, g.own)
	if err != nil {
		return nil, err
	}
	s := &guard{Authority: a, listen: k.listen, copy: g.tokenFile, state: k.state, log: k.log, stop: make(chan struct{})}
	if err := s.publish(); err != nil {
		return nil, err
	}
	s.owned.Go(s.watch)
	join := a.Token(identity.Join)
	p.Say("the coordinator's key has the fingerprint %s", join.Fingerprint())
	if first {
		p.Say("new keys. Who joins from elsewhere needs this token, which is a secret (mochi token show --state %s shows it again):  MOCHI_TOKEN=%s", k.state, join)
	}
	return s, nil
}

// publish writes the tokens, if they are not those written last.
func (s *guard) publish() error {
	join, read := s.Token(identity.Join), s.Token(identity.Read)
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := join.String() + read.String(); text != s.token {
		err := errors.Join(
			identity.WriteToken(tokenFile(s.state, identity.Join), join),
			identity.WriteToken(tokenFile(s.state, identity.Read), read))
		if s.copy != "" {
			err = errors.Join(err, identity.WriteToken(s.copy, join))
		}
		if err != nil {
			return err
		}
		if s.local, err = identity.Leave(s.listen, join); err != nil {
			s.log.Warn("who joins on this machine needs --token-file too", "err", err)
		}
		s.token = text
	}
	return nil
}

// watch publishes tokens that were changed.
func (s *guard) watch() {
	tick := time.NewTicker(republishEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		if err := s.publish(); err != nil {
			s.log.Warn("the tokens were changed and could not be written", "err", err)
		}
	}
}

// close takes away what was left for this machine.
func (s *guard) close() {
	if s != nil {
		close(s.stop)
		s.owned.Wait()
		s.local.Remove()
	}
}

// authority is nil where everybody may come.
func (s *guard) authority() *identity.Authority {
	if s == nil {
		return nil
	}
	return s.Authority
}

// gossipKey is nil where everybody may come.
func (s *guard) gossipKey() []byte {
	if s == nil {
		return nil
	}
	return s.Token(identity.Join).GossipKey()
}

// commitKey is nil where everybody may come.
func (s *guard) commitKey() []byte {
	if s == nil {
		return nil
	}
	return s.CommitKey()
}

// accessing are the flags of who joins that say with which token.
type accessing struct {
	file, ca *string
	insecure *bool
}

func addAccess(c *cli.Command) accessing {
	return accessing{
		file:     c.String("token-file", "", "`FILE` with the token of the job (default: the variable "+tokenFileVariable+"; or the token itself in "+identity.TokenVariable+"; or what a coordinator of the same user on the same machine has left)"),
		ca:       c.String("tls-ca", "", "`FILE` with the authority (PEM) of a coordinator that has --tls-cert: its certificate and name are checked, instead of the fingerprint in the token"),
		insecure: c.Bool("insecure", false, insecureFlag),
	}
}

// source is where this process has its token from; joins: it is to be more than an onlooker.
func (a accessing) source(f *cli.Faults, joins bool) *identity.Source {
	if *a.file == "" && !*a.insecure {
		*a.file = os.Getenv(tokenFileVariable)
	}
	s := &identity.Source{Key: identity.NewKey(), File: *a.file, Text: os.Getenv(identity.TokenVariable), Insecure: *a.insecure, Joins: joins}
	if s.File != "" && s.Insecure {
		f.Add("insecure", "does not go with --token-file")
	}
	f.AddErr("token-file", s.Check())
	if *a.ca != "" {
		var err error
		s.Roots, err = identity.LoadRoots(*a.ca)
		f.AddErr("tls-ca", err)
	}
	return s
}

// notLetIn makes of a refusal an error of usage: nothing has started.
func notLetIn(err error) error {
	var refused *natsbus.RefusedError
	var server *natsbus.ServerError
	if errors.As(err, &refused) || errors.As(err, &server) {
		return cli.UsageError{Err: err}
	}
	return err
}

// known is how members of a job know each other; nothing in the clear.
type known struct {
	gossip     []byte
	neighbours natsring.Neighbours
}

// knownTo is how who has joined at an address is known to the other members.
func knownTo(s *identity.Source, address string) (k known, err error) {
	t, err := s.Token(address)
	if t == nil || err != nil {
		return k, err
	}
	k.gossip = t.GossipKey()
	k.neighbours, err = s.Key.Neighbours()
	return k, err
}
