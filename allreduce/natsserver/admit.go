package natsserver

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// handshakeLimit is how long a client may take from its connection to its name.
const handshakeLimit = 5 * time.Second

// Client is somebody who connects over the network.
type Client struct {
	Name string               // as it says
	TLS  *tls.ConnectionState // nil without Options.TLS

	Challenge, Answer string // with Options.Challenge: what it was asked, drawn for this connection, and what it says (base64)
}

// Rights are what a client may do: subjects, with NATS's wildcards.
type Rights struct {
	User      string // as the server's log names it
	Publish   []string
	Subscribe []string
}

// guard sets who may connect, and how.
func (s *Server) guard(opts *server.Options, o Options) {
	opts.MaxConn, opts.MaxSubs = o.Clients, o.Subscriptions
	if o.Clients > 0 {
		opts.MaxConn += strangerRoom
	}
	if o.TLS != nil {
		// Nothing is said to a stranger, not even which server this is.
		opts.TLSConfig, opts.TLSHandshakeFirst = o.TLS, true
		opts.TLSTimeout, opts.AuthTimeout = handshakeLimit.Seconds(), handshakeLimit.Seconds()
	}
	if o.Challenge {
		opts.AlwaysEnableNonce, opts.AuthTimeout = true, handshakeLimit.Seconds()
	}
	if o.Admit == nil {
		return
	}
	s.own = rand.Text()
	opts.Users, opts.NoAuthUser = nil, "" // the door decides
	opts.CustomClientAuthentication = &door{s: s, admit: o.Admit}
}

// Own is as whom the clients of this process connect; both are "" where nobody needs to
// say.
func (s *Server) Own() (user, password string) {
	if s.own == "" {
		return "", ""
	}
	return clientUser, s.own
}

// Kick ends the connection of a client with the number that the monitor's events give.
func (s *Server) Kick(id uint64) error {
	err := s.ns.DisconnectClientByID(id)
	if err != nil {
		return errors.New("no such connection")
	}
	return nil
}

// door implements NATS's authentication.
type door struct {
	s     *Server
	admit func(Client) (Rights, error)
}

// Check implements server.Authentication. Who connects from this process has no TLS and
// knows its password.
func (d *door) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT {
		return false
	}
	said := c.GetOpts()
	state := c.GetTLSConnectionState()
	is := func(user, password string) bool {
		return password != "" && said.Username == user && subtle.ConstantTimeCompare([]byte(said.Password), []byte(password)) == 1
	}
	switch {
	case state == nil && is(clientUser, d.s.own):
		c.RegisterUser(&server.User{Username: clientUser})
		return true
	case state == nil && is(monitorUser, d.s.password):
		c.RegisterUser(&server.User{Username: monitorUser, Account: d.s.ns.SystemAccount()})
		return true
	}
	may, err := d.admit(Client{Name: said.Name, TLS: state, Challenge: string(c.GetNonce()), Answer: said.Sig})
	if err != nil {
		said.Name = "" // the end of this connection is nobody's end
		return false
	}
	c.RegisterUser(&server.User{Username: may.User, Permissions: &server.Permissions{
		Publish: only(may.Publish), Subscribe: only(may.Subscribe),
	}})
	return true
}

// only are the subjects given; to NATS none would mean all.
func only(subjects []string) *server.SubjectPermission {
	if len(subjects) == 0 {
		return &server.SubjectPermission{Deny: []string{">"}}
	}
	return &server.SubjectPermission{Allow: subjects}
}
