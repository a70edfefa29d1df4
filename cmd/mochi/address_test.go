package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]struct {
		listen, advertise string // "" = refused
	}{
		"a:1":         {"a:1", "a:1"},
		"[::1]:4222":  {"[::1]:4222", "[::1]:4222"},
		":7000":       {":7000", ""},
		"a":           {"", "a:0"},
		"::1":         {"", "[::1]:0"},
		"[::1]":       {"", "[::1]:0"},
		"2001:db8::7": {"", "[2001:db8::7]:0"},
		"a:b:1":       {},
		"[a]":         {"", "a:0"},
		"a:":          {},
		"a:65536":     {},
		"a:-1":        {},
		"[::1":        {},
		"[]":          {},
	} {
		for _, listen := range []bool{true, false} {
			want := want.advertise
			if listen {
				want = map[string]string{"a:1": "a:1", "[::1]:4222": "[::1]:4222", ":7000": ":7000"}[text]
			}
			e, err := parseEndpoint(text, listen)
			if got := e.String(); (err == nil) != (want != "") || err == nil && got != want {
				t.Errorf("%q, port needed %v: %q %v, want %q", text, listen, got, err, want)
			}
			if err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%q: the fault does not name it: %v", text, err)
			}
		}
	}
}

// Where a replica listens and what the others are told, from its flags.
func TestPlaces(t *testing.T) {
	names := map[string][]string{
		"localhost": {"::1", "127.0.0.1"},
		"here":      {"127.0.1.1"}, // as /etc/hosts has it
		"both":      {"2001:db8::5", "10.0.0.5"},
		"gateway":   {"203.0.113.9"},
	}
	own := map[string]bool{"127.0.0.1": true, "127.0.1.1": true, "::1": true, "10.0.0.5": true, "10.1.0.5": true, "2001:db8::5": true}
	for _, c := range []struct {
		facing, listen, gossip, advertise string
		ring, told, hints, hinted         string // "" = an error
	}{
		{"10.0.0.5", "", "", "", "10.0.0.5:0", "10.0.0.5:0", "10.0.0.5:0", "10.0.0.5"},
		{"::1", "", "", "", "[::1]:0", "[::1]:0", "[::1]:0", "::1"},
		{"127.0.0.1", "", "", "localhost", "127.0.0.1:0", "localhost:0", "127.0.0.1:0", "127.0.0.1"},
		{"::1", "", "", "localhost", "[::1]:0", "localhost:0", "[::1]:0", "::1"},
		{"10.0.0.5", "", "", "here", "10.0.0.5:0", "here:0", "10.0.0.5:0", "10.0.0.5"},
		{"10.0.0.5", "", "", "both", "10.0.0.5:0", "both:0", "10.0.0.5:0", "10.0.0.5"},
		{"2001:db8::5", "", "", "both", "[2001:db8::5]:0", "both:0", "[2001:db8::5]:0", "2001:db8::5"},
		{"10.0.0.5", "", "", "10.1.0.5", "10.1.0.5:0", "10.1.0.5:0", "10.1.0.5:0", "10.1.0.5"},
		{"10.0.0.5", "", "", "10.1.0.5:7000", "10.1.0.5:7000", "10.1.0.5:7000", "10.1.0.5:0", "10.1.0.5"},
		// Somebody in between translates addresses.
		{"10.0.0.5", "", "", "gateway:7000", "10.0.0.5:7000", "gateway:7000", "10.0.0.5:0", "203.0.113.9"},
		{"10.0.0.5", "0.0.0.0:7000", ":7001", "gateway:17000", "0.0.0.0:7000", "gateway:17000", "0.0.0.0:7001", "203.0.113.9"},
		{"10.0.0.5", ":7000", "", "", ":7000", "10.0.0.5:0", "0.0.0.0:0", "10.0.0.5"},
		{"10.0.0.5", "[::]:7000", "", "", "[::]:7000", "10.0.0.5:0", "[::]:0", "10.0.0.5"},
		{"10.0.0.5", "10.1.0.5:7000", "10.0.0.5:7001", "", "10.1.0.5:7000", "10.1.0.5:0", "10.0.0.5:7001", "10.1.0.5"},
		{"", "", "", "10.1.0.5", "10.1.0.5:0", "10.1.0.5:0", "10.1.0.5:0", "10.1.0.5"},
		{"", "", "", "", "", "", "", ""},
		{"fe80::1%eth0", "", "", "", "", "", "", ""},
		{"10.0.0.5", "", "", "nobody", "", "", "", ""},
		{"10.0.0.5", "", "nobody:1", "", "", "", "", ""},
	} {
		parse := func(text string, needsPort bool) (e endpoint) {
			if text != "" {
				var err error
				if e, err = parseEndpoint(text, needsPort); err != nil {
					t.Fatal(err)
				}
			}
			return e
		}
		p, err := finder{
			listen: parse(c.listen, true), gossip: parse(c.gossip, true), advertise: parse(c.advertise, false),
			facing: func() (string, error) {
				if c.facing == "" {
					return "", errors.New("no way there")
				}
				return c.facing, nil
			},
			lookup: func(_ context.Context, name string) ([]string, error) {
				if names[name] == nil {
					return nil, &net.DNSError{Name: name, IsNotFound: true}
				}
				return names[name], nil
			},
			own: func(ip string) bool { return own[ip] },
		}.places(t.Context())
		if c.ring == "" {
			if err == nil || !strings.Contains(err.Error(), "--") {
				t.Errorf("%+v: want an error that says what to set, got %+v %v", c, p, err)
			}
			continue
		}
		if err != nil || p.Ring.String() != c.ring || p.Told.String() != c.told || p.Gossip.String() != c.hints || p.Hinted != c.hinted {
			t.Errorf("%+v: ring %s, told %s, gossip %s, hinted %s, %v", c, p.Ring, p.Told, p.Gossip, p.Hinted, err)
		}
	}
}

// Who reads how to join on another machine is not told an address of this one alone.
func TestJoinLine(t *testing.T) {
	here := func() ([]net.Addr, error) {
		return []net.Addr{
			&net.IPNet{IP: net.ParseIP("127.0.0.1")}, &net.IPNet{IP: net.ParseIP("10.0.0.5")},
			&net.IPNet{IP: net.ParseIP("fe80::1")}, &net.IPNet{IP: net.ParseIP("2001:db8::5")},
		}, nil
	}
	nowhere := func() ([]net.Addr, error) { return nil, nil }
	const url = "nats://127.0.0.1:4222"
	for _, c := range []struct {
		listen string
		here   func() ([]net.Addr, error)
		want   string
	}{
		{"127.0.0.1:4222", here, url + " --data …"},
		{"10.0.0.5:4222", here, url + " --data …"},
		{"0.0.0.0:4222", here, "nats://10.0.0.5:4222 --data …  (on this machine " + url + ")"},
		{":4222", here, "nats://10.0.0.5:4222 or nats://[2001:db8::5]:4222 --data …  (on this machine " + url + ")"},
		{"[::]:0", nowhere, url + " --data …  (on this machine; from others, with a name or an address of it in place of 127.0.0.1)"},
	} {
		if got := joinLine(c.listen, url, c.here); got != c.want {
			t.Errorf("%s: %q, want %q", c.listen, got, c.want)
		}
	}
}
