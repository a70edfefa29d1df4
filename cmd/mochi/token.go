package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"mochi/cmd/mochi/cli"
	"mochi/coordinator/identity"
	"mochi/coordinator/smallfile"
)

// shownToken is the JSON of mochi token show.
type shownToken struct {
	Role        string `json:"role"`
	Token       string `json:"token"`
	Fingerprint string `json:"fingerprint"`
}

func tokenShowCommand() *cli.Command {
	c := cli.NewCommand("token show", cli.Text{
		Short:   "show the token that others join a job with",
		About:   "show the token that others join a job with, or the one that only reads its status; whoever sees it has it",
		Example: "mochi token show --state /srv/run\nmochi token show --state /srv/run --read",
	})
	state := c.String("state", "", "`DIR` of the coordinator's run")
	read := c.Bool("read", false, "the token to read the status with")
	asJSON := c.Bool("json", false, "print one JSON object")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if *state == "" {
			f.Add("state", "missing: the folder of the coordinator's run")
		}
		if err := f.Err(); err != nil {
			return err
		}
		role := identity.Join
		if *read {
			role = identity.Read
		}
		text, err := smallfile.Read(tokenFile(*state, role), 64<<10)
		if err != nil {
			return fmt.Errorf("%w; a coordinator makes its tokens at its first start", err)
		}
		t, err := identity.ParseToken(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", tokenFile(*state, role), err)
		}
		if *asJSON {
			return cli.PrintJSON(out, shownToken{string(role), t.String(), t.Fingerprint()})
		}
		fmt.Fprintln(out, t)
		return nil
	}
	return c
}

func tokenRotateCommand() *cli.Command {
	c := cli.NewCommand("token rotate", cli.Text{
		Short: "make a new token; the one before lets nobody in any more",
		About: "make a new token: within seconds a running coordinator lets nobody in with the one before. Who is in stays; " +
			"where somebody who should not be there is in, start the coordinator anew afterwards",
		Example: "mochi token rotate --state /srv/run\nmochi token rotate --state /srv/run --read",
	})
	state := c.String("state", "", "`DIR` of the coordinator's run")
	keys := c.String("keys", "", "`FILE` with the keys that the coordinators of a group share, instead; give the new one to all of them")
	read := c.Bool("read", false, "the token to read the status with, alone")
	c.Run = func(args []string, out, errs io.Writer) error {
		var f cli.Faults
		if (*state == "") == (*keys == "") {
			f.Add("state", "either this or --keys: where the coordinator's keys are")
		}
		if err := f.Err(); err != nil {
			return err
		}
		load, save := func() (identity.Root, error) { return identity.LoadRoot(identityDir(*state)) },
			func(r identity.Root) error { return r.Save(identityDir(*state)) }
		if *keys != "" {
			load, save = func() (identity.Root, error) { return identity.ReadRoot(*keys) },
				func(r identity.Root) error { return r.Write(*keys) }
		}
		root, err := load()
		if err != nil {
			return err
		}
		role := identity.Join
		if *read {
			role = identity.Read
		}
		root.Rotate(role)
		if err := save(root); err != nil {
			return err
		}
		fmt.Fprintf(out, "a running coordinator takes the new token within seconds, and one that does not run at its start; mochi token show prints it then. Who is in stays until the coordinator is started again; then replicas need the new one: in their --token-file, or with MOCHI_TOKEN start them again\n")
		return nil
	}
	return c
}

func tokenKeysCommand() *cli.Command {
	c := cli.NewCommand("token keys FILE", cli.Text{
		Short:   "make the keys that the coordinators of a group share",
		About:   "make the keys that the coordinators of a group share (--keys); whoever has them is the coordinator",
		Example: "mochi token keys /srv/keys",
	})
	c.Run = func(args []string, out, errs io.Writer) error {
		if _, err := os.Lstat(args[0]); !errors.Is(err, os.ErrNotExist) {
			return cli.UsageError{Err: fmt.Errorf("%s exists: keys are not written over, since every token of theirs would end", args[0])}
		}
		return identity.NewRoot().Write(args[0])
	}
	return c
}
