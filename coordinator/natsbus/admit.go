package natsbus

import (
	"crypto/tls"
	"errors"
	"strings"

	"mochi/allreduce/natsserver"
	"mochi/coordinator/identity"
	"mochi/coordinator/protocol"
)

// Access is how somebody comes to a coordinator: identity.Source, or another coordinator.
type Access interface {
	// Client is how to connect to HOST:PORT; nil: in the clear.
	Client(address string) (*tls.Config, error)
	// Inbox is where answers go: a subject that no other client may read.
	Inbox() string
}

// Limits of who connects: a replica has two connections and needs three subscriptions.
const (
	maxClients       = 4096
	maxSubscriptions = 16
)

// bulkName begins the names of connections that carry checkpoints.
const bulkName = "bulk."

// statusName is the name of a connection that asks for the status alone.
const statusName = "mochi-status"

// errNotIts: a client says that it is a replica whose key it does not have.
var errNotIts = errors.New("the id is not one that its key proves")

// admission says what clients of a job may do: a replica speaks as itself and hears what
// is for it, who has a token to read asks for the status, and another coordinator says
// how it stands, besides.
func admission(job string, a *identity.Authority) func(natsserver.Client) (natsserver.Rights, error) {
	return func(c natsserver.Client) (r natsserver.Rights, err error) {
		role, err := a.Role(c.TLS)
		if err != nil {
			return r, err
		}
		r.User = string(role)
		r.Publish = []string{protocol.StatusSubject(job)}
		r.Subscribe = []string{identity.Inbox(c.TLS) + ".>"}
		if c.Name == statusName {
			return r, nil
		}
		// The end of a connection is told by its name, so nobody has another's.
		id := strings.TrimPrefix(c.Name, bulkName)
		if !natsserver.IsToken(id) || !identity.Proves(c.TLS, id) {
			return r, errNotIts
		}
		if role == identity.Read {
			return r, nil
		}
		r.Publish = append(r.Publish, protocol.CheckpointSubject(job, id))
		if id == c.Name {
			r.Publish = append(r.Publish, protocol.CoordinatorSubject(job, id))
			r.Subscribe = append(r.Subscribe, protocol.ReplicaSubject(job, id))
		}
		if role == identity.Coordinator {
			r.Publish = append(r.Publish, protocol.GroupSubject(job))
		}
		return r, nil
	}
}
