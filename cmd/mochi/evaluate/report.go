package evaluate

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/csv"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"mochi/model/probe"
	"mochi/replica/data"
)

//go:embed report.html
var reportPage string

// How much of it a report shows.
const (
	shownMistakes   = 24
	shownNeighbours = 4
	shownConfusions = 30
	thumbnail       = 64 // pixels
)

// reported is what the page is made of.
type reported struct {
	LinearResult
	ByClass    []classReport
	Confusions []confusion
	Mistakes   []mistake
}

type classReport struct {
	Name          string
	Images, Right int
}

// Share is the accuracy of the class, per cent.
func (c classReport) Share() string {
	return fmt.Sprintf("%.1f", 100*float64(c.Right)/float64(max(1, c.Images)))
}

type confusion struct {
	Is, Taken string
	Images    int
}

type mistake struct {
	picture
	Is, Taken  string
	Confidence string
	Near       []picture // training images with the most similar features
}

type picture struct {
	Path, Class string
	Image       template.URL
}

// Report writes the folder dir: index.html, which needs nothing else, confusion.csv
// (a row a class that images have, a column a class that they are taken for) and
// classes.csv. It is whole or not there.
func (l *Linear) Report(dir string) (err error) {
	dir = filepath.Clean(dir)
	defer func() {
		if err != nil {
			err = fmt.Errorf("report %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".tmp-report-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // gone already where all went well
	r, matrix, err := l.reported()
	if err != nil {
		return err
	}
	page, err := template.New("report").Funcs(template.FuncMap{
		"percent": func(x float64) string { return fmt.Sprintf("%.2f", 100*x) },
	}).Parse(reportPage)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := page.Execute(&text, r); err != nil {
		return err
	}
	byClass := [][]string{{"class", "images", "right"}}
	for _, c := range r.ByClass {
		byClass = append(byClass, []string{c.Name, strconv.Itoa(c.Images), strconv.Itoa(c.Right)})
	}
	for name, content := range map[string][]byte{"index.html": text.Bytes(), "confusion.csv": table(matrix), "classes.csv": table(byClass)} {
		if err := os.WriteFile(filepath.Join(temp, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	return os.Rename(temp, dir)
}

// table is rows as CSV.
func table(rows [][]string) []byte {
	var b bytes.Buffer
	_ = csv.NewWriter(&b).WriteAll(rows) // a buffer takes all
	return b.Bytes()
}

// reported collects what the page shows, and the confusion matrix with its heads.
func (l *Linear) reported() (r reported, matrix [][]string, err error) {
	r.LinearResult = l.LinearResult
	names := make([]string, l.Classes)
	for c := range names {
		names[c] = className(l.set.Train, c)
		r.ByClass = append(r.ByClass, classReport{Name: names[c]})
	}
	counts := make([]int, l.Classes*l.Classes)
	type wrong struct {
		row, taken int
		confidence float64
	}
	var mistakes []wrong
	for row, label := range l.test.labels {
		logits := l.logits[row*l.Classes : (row+1)*l.Classes]
		taken := 0
		for c, v := range logits {
			if v > logits[taken] {
				taken = c
			}
		}
		counts[int(label)*l.Classes+taken]++
		r.ByClass[label].Images++
		if probe.Place(logits, int(label)) == 0 {
			r.ByClass[label].Right++
		} else {
			mistakes = append(mistakes, wrong{row, taken, confidence(logits, taken)})
		}
	}
	matrix = append(matrix, append([]string{"is \\ taken for"}, names...))
	for is, name := range names {
		line := []string{name}
		for taken, n := range counts[is*l.Classes : (is+1)*l.Classes] {
			if line = append(line, strconv.Itoa(n)); n > 0 && is != taken {
				r.Confusions = append(r.Confusions, confusion{name, names[taken], n})
			}
		}
		matrix = append(matrix, line)
	}
	slices.SortStableFunc(r.Confusions, func(a, b confusion) int { return b.Images - a.Images })
	r.Confusions = r.Confusions[:min(len(r.Confusions), shownConfusions)]
	slices.SortStableFunc(mistakes, func(a, b wrong) int { return cmp.Compare(b.confidence, a.confidence) })
	pictures := newPictures(thumbnail)
	defer pictures.decoder.Close()
	for _, w := range mistakes[:min(len(mistakes), shownMistakes)] {
		m := mistake{Is: names[l.test.labels[w.row]], Taken: names[w.taken], Confidence: fmt.Sprintf("%.0f", 100*w.confidence)}
		if m.picture, err = pictures.of(l.set.Test, l.test.samples[w.row], m.Is); err != nil {
			return r, nil, err
		}
		for _, near := range l.nearest(w.row) {
			p, err := pictures.of(l.set.Train, l.train.samples[near], names[l.train.labels[near]])
			if err != nil {
				return r, nil, err
			}
			m.Near = append(m.Near, p)
		}
		r.Mistakes = append(r.Mistakes, m)
	}
	return r, matrix, nil
}

// confidence is the probability of a class.
func confidence(logits []float32, class int) float64 {
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v - logits[class]))
	}
	return 1 / sum
}

// nearest are the training images whose features have the largest cosine with that
// of a test image, the nearest first.
func (l *Linear) nearest(row int) (rows []int) {
	f := l.test.features[0][row*l.dim : (row+1)*l.dim]
	type near struct {
		row int
		cos float64
	}
	best := make([]near, 0, shownNeighbours+1)
	for i := range l.train.samples {
		g := l.train.features[0][i*l.dim : (i+1)*l.dim]
		var dot, norm float64
		for j, v := range g {
			dot += float64(v) * float64(f[j])
			norm += float64(v) * float64(v)
		}
		n := near{i, dot / math.Sqrt(max(norm, 1e-24))}
		at, _ := slices.BinarySearchFunc(best, n, func(a, b near) int { return cmp.Or(cmp.Compare(b.cos, a.cos), a.row-b.row) })
		if best = slices.Insert(best, at, n); len(best) > shownNeighbours {
			best = best[:shownNeighbours]
		}
	}
	for _, n := range best {
		rows = append(rows, n.row)
	}
	return rows
}

// className is a class's name, its number where it has none.
func className(d data.Dataset, class int) string {
	if l, is := d.(*data.Lenient); is {
		d = l.Dataset
	}
	if named, is := d.(interface{ ClassName(int) string }); is {
		return named.ClassName(class)
	}
	return strconv.Itoa(class)
}
