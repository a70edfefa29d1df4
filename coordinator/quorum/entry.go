package quorum

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"mochi/coordinator/protocol"
)

// Kinds of entries. A number is never given to another kind.
const (
	kindBegin  = 1  // a leadership begins: what comes before it counts
	kindLead   = 2  // leadEntry
	kindCommit = 3  // protocol.Commit
	kindAdopt  = 4  // adoptEntry
	kindForget = 5  // stepEntry
	kindRound  = 6  // roundEntry
	kindData   = 7  // protocol.Data
	kindConfig = 8  // configEntry
	kindNote   = 9  // noteEntry
	kindLines  = 10 // see encodeLines
	kindHeld   = 11 // heldEntry
	kindStored = 12 // Checkpoint
	kindOver   = 13 // Outcome
	kindAdmit  = 14 // admitEntry
	kindReopen = 15 // of a job that was over: it goes on
)

// Bodies of entries, JSON.
type (
	leadEntry struct {
		Above uint64 `json:"above"`
	}
	// adoptEntry is a part of the commits that are adopted: so many at once that an
	// entry does not become too large. They count when the last part is there.
	adoptEntry struct {
		First   bool              `json:"first"`
		More    bool              `json:"more"`
		Commits []json.RawMessage `json:"commits"`
	}
	stepEntry struct {
		Step int64 `json:"step"`
	}
	roundEntry struct {
		Round int64 `json:"round"`
	}
	configEntry struct {
		Text string `json:"text"`
	}
	noteEntry struct {
		Name string `json:"name"`
		Text string `json:"text"`
	}
	// heldEntry says how many lines the first leader had before there was a group.
	heldEntry struct {
		Lines map[string]int64 `json:"lines"`
	}
	// admitEntry gives its vote back to a member whose folder was emptied.
	admitEntry struct {
		Name  string `json:"name"`
		Nonce string `json:"nonce"`
	}
)

// line is a line of a file.
type line struct {
	file string
	text []byte
}

// How large things may be. An entry that is larger is not made, and one that says it is
// larger is not read.
const (
	maxEntry   = 32 << 20
	batchLines = 256 << 10 // bytes of lines in one entry, one line at least
	batchAdopt = 4 << 20   // bytes of commits in one part of an adoption, one at least
)

// entry is what is replicated: its kind, the leadership that made it (raft's term, so
// that one that was made under another counts no more), and a body.
type entry struct {
	kind  byte
	under uint64
	body  []byte
}

func (e entry) encode() ([]byte, error) {
	if len(e.body) > maxEntry {
		return nil, fmt.Errorf("an entry of %d bytes is too large to be replicated: at most %d", len(e.body), maxEntry)
	}
	out := binary.AppendUvarint([]byte{e.kind}, e.under)
	return append(out, e.body...), nil
}

var errEntry = errors.New("it is no entry of a log")

func decodeEntry(data []byte) (entry, error) {
	if len(data) == 0 {
		return entry{}, errEntry
	}
	under, n := binary.Uvarint(data[1:])
	if n <= 0 {
		return entry{}, errEntry
	}
	return entry{kind: data[0], under: under, body: data[1+n:]}, nil
}

func encodeLines(lines []line) (body []byte) {
	for _, l := range lines {
		body = appendBytes(appendBytes(body, []byte(l.file)), l.text)
	}
	return body
}

func decodeLines(body []byte) (lines []line, err error) {
	for len(body) > 0 {
		var file, text []byte
		if file, body, err = cutBytes(body); err == nil {
			text, body, err = cutBytes(body)
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{string(file), text})
	}
	return lines, nil
}

func appendBytes(to, b []byte) []byte {
	return append(binary.AppendUvarint(to, uint64(len(b))), b...)
}

func cutBytes(from []byte) (b, rest []byte, err error) {
	size, n := binary.Uvarint(from)
	if n <= 0 || size > uint64(len(from)-n) {
		return nil, nil, errEntry
	}
	return from[n : n+int(size)], from[n+int(size):], nil
}

func decodeCommit(body []byte) (c protocol.Commit, err error) {
	if err = json.Unmarshal(body, &c); err != nil {
		err = fmt.Errorf("decode a commit: %w", err)
	}
	return c, err
}
