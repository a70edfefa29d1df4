package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
)

func linesSubject(job string) string { return fmt.Sprintf("mochi.%s.lines", job) }

// batchLines is how many bytes of lines go in one message, one line at least.
const batchLines = 256 << 10

// wanted asks for lines of a file.
type wanted struct {
	By   string `json:"by"` // an instance
	File string `json:"file"`
	From int64  `json:"from"`
	Has  int64  `json:"has"` // of whoever has that many
}

// giveLines answers another coordinator that lacks lines; who has none says nothing.
func (g *Group) giveLines(m *nats.Msg) {
	var w wanted
	if json.Unmarshal(m.Data, &w) != nil || w.From < 1 || w.By == g.instance {
		return
	}
	held, err := g.o.Follow.Held(w.File)
	if err == nil && held < w.Has {
		return
	}
	var lines [][]byte
	if err == nil {
		lines, err = g.o.Follow.Read(w.File, w.From, batchLines)
	}
	if err == nil && len(lines) > 0 {
		err = m.Respond(bytes.Join(lines, []byte("\n")))
	}
	if err != nil {
		g.o.Log.Debug("lines were not given", "file", w.File, "err", err)
	}
}

// fetch gets lines that the log no longer has from another coordinator, up to one, and
// returns how many are held then. The last line that is held must be the same there.
func (g *Group) fetch(ctx context.Context, file string, held, upTo int64) (int64, error) {
	from := max(held, 1)
	ask, err := json.Marshal(wanted{g.instance, file, from, held + 1})
	if err != nil {
		return held, err
	}
	within, cancel := context.WithTimeout(ctx, againAtMost)
	defer cancel()
	answer, err := g.o.Conn.RequestWithContext(within, linesSubject(g.o.Job), ask)
	if err != nil {
		return held, fmt.Errorf("no coordinator that is here has line %d of %s; start the one that has it, or give the job another name with --job: %w", held+1, file, err)
	}
	lines := bytes.Split(answer.Data, []byte("\n"))
	if held > 0 {
		own, err := g.o.Follow.Read(file, held, 1)
		if err != nil || len(own) == 0 {
			return held, fmt.Errorf("line %d of %s cannot be read: %w", held, file, err)
		}
		if !bytes.Equal(own[0], lines[0]) {
			g.fail(fmt.Errorf("line %d of %s is another one here than in job %q: it is of another run; move the run folder of this coordinator aside, or give the job another name with --job", held, file, g.o.Job))
			<-ctx.Done()
			return held, ctx.Err()
		}
	}
	for i, text := range lines {
		n := from + int64(i)
		if n <= held || n > upTo {
			continue
		}
		if err := g.o.Follow.Line(file, n, text); err != nil {
			return held, err
		}
		held = n
	}
	return held, nil
}
