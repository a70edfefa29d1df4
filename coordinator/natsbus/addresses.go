package natsbus

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mochi/coordinator/smallfile"
)

// defaultPort is where a coordinator listens unless an address says otherwise.
const defaultPort = "4222"

// maxAddressFile bounds what is read of a file of addresses, and mostTold how many
// of a coordinator are believed.
const (
	maxAddressFile = 64 << 10
	mostTold       = 64
)

// Addresses are where the coordinator of a job may be: those that were given, those
// in a file, which may change, and those that a coordinator told of. Where several
// coordinators stand by for each other the one that leads answers. It is safe for
// concurrent use.
type Addresses struct {
	file   string
	creds  string // file with credentials, "": none
	secure bool   // by TLS

	mu                sync.Mutex
	given, read, told []string
	stamp             time.Time // of the file when it was read
	size              int64     // likewise
	trouble           string    // with the file
}

// secureScheme is that of an address that is reached by TLS.
const secureScheme = "tls://"

// ParseAddress reads HOST:PORT, HOST, nats://HOST:PORT or tls://HOST:PORT, and returns
// HOST:PORT.
func ParseAddress(text string) (string, error) {
	host := text
	if scheme, rest, found := strings.Cut(text, "://"); found {
		u, err := url.Parse(text)
		if err == nil && u.User != nil {
			return "", fmt.Errorf("%q has a name or a password in it, which would be seen by all who list processes: put credentials into a file, and name it with --nats-creds", u.Redacted())
		}
		if err != nil || scheme != "nats" && scheme != "tls" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return "", fmt.Errorf("%q is not of the form nats://HOST:PORT, or tls://HOST:PORT", text)
		}
		host = strings.TrimRight(rest, "/")
	}
	port := defaultPort
	if h, p, err := net.SplitHostPort(host); err == nil {
		if host = h; p != "" {
			port = p
		}
	} else if bare, cut := strings.CutPrefix(host, "["); cut && strings.HasSuffix(bare, "]") {
		host = bare[:len(bare)-1]
	} else if strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", fmt.Errorf("%q is not of the form HOST:PORT; an IPv6 address stands in brackets, as in [::1]:4222", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0:
		return "", fmt.Errorf("port %q of %q is not a number from 1 to 65535", port, text)
	case host == "" || strings.ContainsAny(host, " \t/@?#[]"):
		return "", fmt.Errorf("%q is not of the form HOST:PORT", text)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// NewAddresses reads a list of addresses separated by commas, and those in a file,
// one a line (from # on a line is a remark), which is read again whenever it
// changes. Either may be "", not both.
func NewAddresses(list, file string) (*Addresses, error) {
	a := &Addresses{file: file}
	var faults []error
	plain := false
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if strings.HasPrefix(text, secureScheme) {
			a.secure = true
		} else {
			plain = true
		}
		address, err := ParseAddress(text)
		faults = append(faults, err)
		if err == nil && !slices.Contains(a.given, address) {
			a.given = append(a.given, address)
		}
	}
	if a.secure && plain {
		faults = append(faults, fmt.Errorf("some of %q begin with %s and some do not: write it before each, or before none", list, secureScheme))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if file != "" {
		if err := a.readFile(); err != nil {
			return nil, err
		}
	}
	if len(a.given)+len(a.read) == 0 {
		if file != "" {
			return nil, fmt.Errorf("there is no address in %s: write HOST:PORT of a coordinator there, one a line", file)
		}
		return nil, errors.New("no address is given: HOST:PORT of the coordinator, or of several, separated by commas")
	}
	return a, nil
}

// As says with which credentials to connect: a file of NATS (.creds), "" for none.
func (a *Addresses) As(creds string) { a.creds = creds }

// All are the addresses as they are now, each once.
func (a *Addresses) All() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != "" {
		a.readAgain()
	}
	var all []string
	for _, address := range slices.Concat(a.given, a.read, a.told) {
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

// Learn takes the addresses that a coordinator told of, in place of those before.
// What is no address is left out.
func (a *Addresses) Learn(told []string) {
	var good []string
	for _, text := range told[:min(len(told), mostTold)] {
		if address, err := ParseAddress(text); err == nil {
			good = append(good, address)
		}
	}
	if len(good) > 0 {
		a.mu.Lock()
		a.told = good
		a.mu.Unlock()
	}
}

// readAgain takes what the file says now. While it cannot be read, or has no
// address, what it said last holds: somebody may be writing it. The lock is held.
func (a *Addresses) readAgain() {
	info, err := os.Stat(a.file)
	if err == nil && info.ModTime().Equal(a.stamp) && info.Size() == a.size {
		return
	}
	if err == nil {
		err = a.readFile()
	}
	if a.trouble = ""; err != nil {
		a.trouble = err.Error()
	}
}

// Trouble says what is wrong with the file, "" if nothing is.
func (a *Addresses) Trouble() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trouble
}

func (a *Addresses) readFile() error {
	info, err := os.Stat(a.file)
	if err != nil {
		return fmt.Errorf("read the coordinators' addresses: %w", err)
	}
	text, err := smallfile.Read(a.file, maxAddressFile)
	if err != nil {
		return fmt.Errorf("read the coordinators' addresses, one HOST:PORT a line: %w", err)
	}
	var read []string
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		address, err := ParseAddress(line)
		if err == nil && strings.HasPrefix(line, secureScheme) && !a.secure {
			err = fmt.Errorf("%q: only addresses that are given on the command line may begin with %s, and then all are reached so", line, secureScheme)
		}
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", a.file, n, err)
		}
		read = append(read, address)
	}
	if len(read) > 0 || a.read == nil {
		a.read, a.stamp, a.size = read, info.ModTime(), info.Size()
	}
	return nil
}
