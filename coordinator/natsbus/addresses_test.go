package natsbus_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/coordinator/natsbus"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"a:1":                       "a:1",
		"a":                         "a:4222",
		"nats://a:1":                "a:1",
		"nats://a":                  "a:4222",
		"nats://a:1/":               "a:1",
		"[::1]:7":                   "[::1]:7",
		"::1":                       "[::1]:4222",
		"[::1]":                     "[::1]:4222",
		"nats://[2001:db8::1]:4":    "[2001:db8::1]:4",
		"10.0.0.1:0004222":          "10.0.0.1:4222",
		"":                          "",
		":4222":                     "",
		"a:":                        "a:4222",
		"a:0":                       "",
		"a:65536":                   "",
		"a:b:c":                     "",
		"http://a:1":                "",
		"nats://u:secret@a:1":       "",
		"nats://a:1/x":              "",
		"tls://a:1":                 "a:1",
		"tls://u@a:1":               "",
		"a b:1":                     "",
		"[::1:4222":                 "",
		"nats://a:1?tls=true":       "",
		"nats://" + "\x00" + ":1":   "",
		strings.Repeat(":", 100000): "",
	} {
		got, err := natsbus.ParseAddress(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.40q is %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "coordinators")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(list, file, want string) {
		t.Helper()
		if _, err := natsbus.NewAddresses(list, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, %q: %v, want an error with %q", list, file, err, want)
		}
	}
	refused("", "", "no address is given")
	refused(" , ", "", "no address is given")
	refused("a:1,b:x,c:0", "", "\"c:0\"")
	refused("", file, "no such file")
	write("# nobody yet\n\n")
	refused("", file, "there is no address in "+file)
	write("a:1\nb:x\n")
	refused("", file, "line 2")
	write(strings.Repeat("a:1\n", 20000))
	refused("", file, "at most 65536")

	write("b:2 # the second\n\n  nats://c:3  \r\nb:2")
	a, err := natsbus.NewAddresses("a:1, b:2", file)
	if err != nil {
		t.Fatal(err)
	}
	are := func(when string, want ...string) {
		t.Helper()
		if got := a.All(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	are("at first", "a:1", "b:2", "c:3")
	write("d:4\n")
	are("the file has changed", "a:1", "b:2", "d:4")
	write("d:4\ne:")
	are("half of it is written", "a:1", "b:2", "d:4", "e:4222")
	write("d:4\ne:5x")
	are("a line of it is wrong", "a:1", "b:2", "d:4", "e:4222")
	if !strings.Contains(a.Trouble(), "line 2") {
		t.Errorf("the trouble is said to be %q", a.Trouble())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	are("the file is gone", "a:1", "b:2", "d:4", "e:4222")
	write("f:61\n")
	are("it is back", "a:1", "b:2", "f:61")
	if a.Trouble() != "" {
		t.Errorf("there is still trouble: %s", a.Trouble())
	}
	a.Learn([]string{"z:9", "not an address", "a:1"})
	are("a coordinator told", "a:1", "b:2", "f:61", "z:9")
	a.Learn([]string{"::::"})
	are("a coordinator told nothing of use", "a:1", "b:2", "f:61", "z:9")
	a.Learn([]string{"y:8"})
	are("a coordinator told anew", "a:1", "b:2", "f:61", "y:8")
}
