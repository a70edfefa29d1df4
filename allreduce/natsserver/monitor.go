package natsserver

import (
	"crypto/rand"

	"github.com/nats-io/nats-server/v2/server"
)

// Accounts and users of a server with Options.Monitor. Whoever gives no name
// is the client user and in the global account.
const (
	systemAccount = "SYS"
	globalAccount = "$G"
	monitorUser   = "monitor"
	clientUser    = "mochi"
)

// withAccounts sets apart who watches from all others.
func withAccounts(opts *server.Options, password string) {
	system := server.NewAccount(systemAccount)
	opts.Accounts = []*server.Account{system}
	opts.SystemAccount = systemAccount
	opts.Users = []*server.User{
		{Username: monitorUser, Password: password, Account: system},
		{Username: clientUser, Password: rand.Text()},
	}
	opts.NoAuthUser = clientUser
}

// Monitor is who must connect, and to which subject it must subscribe, to be
// told of every client that disconnects (a JSON object with client.name); all
// are "" without Options.Monitor.
func (s *Server) Monitor() (user, password, subject string) {
	if s.password == "" {
		return "", "", ""
	}
	return monitorUser, s.password, "$SYS.ACCOUNT." + globalAccount + ".DISCONNECT"
}
