package main

import (
	"mochi/cmd/mochi/cli"
	"mochi/coordinator/natsbus"
)

// localCoordinator is where mochi coordinator listens unless it is told otherwise.
const localCoordinator = "127.0.0.1:4222"

// joining are the flags that say where the coordinators are.
type joining struct {
	list, file, creds *string
	access            accessing
	given             func(string) bool
}

func addJoin(c *cli.Command, standard string) joining {
	return joining{
		list:   c.String("join", standard, "`HOST:PORT` of the coordinator; of several, where some stand by: A,B,C; or of the NATS servers that they use (nats://… or tls://…)"),
		file:   c.String("join-file", "", "`FILE` with HOST:PORT of coordinators, one a line; it may change while this runs"),
		creds:  addCredentials(c),
		access: addAccess(c), given: c.Given,
	}
}

// addresses are those that the flags say.
func (j joining) addresses(f *cli.Faults) *natsbus.Addresses {
	list := *j.list
	if *j.file != "" && !j.given("join") {
		list = "" // the file takes the place of the default
	}
	if list == "" && *j.file == "" {
		f.Add("join", "missing: HOST:PORT of the coordinator")
		return nil
	}
	if list != "" {
		if _, err := natsbus.NewAddresses(list, ""); err != nil {
			f.Add("join", "%v", err)
			return nil
		}
	}
	where, err := natsbus.NewAddresses(list, *j.file)
	if err != nil {
		f.Add("join-file", "%v", err)
	}
	useCredentials(f, where, *j.creds)
	return where
}

func addCredentials(c *cli.Command) *string {
	return c.String("nats-creds", "", "`FILE` with NATS credentials (.creds), where coordinators use a NATS cluster (--nats) that wants some")
}

// useCredentials checks --nats-creds, and uses it where there are addresses.
func useCredentials(f *cli.Faults, where *natsbus.Addresses, file string) {
	if file == "" {
		return
	}
	if err := natsbus.CheckCredentials(file); err != nil {
		f.Add("nats-creds", "%v", err)
	} else if where != nil {
		where.As(file)
	}
}
