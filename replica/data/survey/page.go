package survey

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"strings"

	"mochi/replica/data"
	"mochi/replica/data/sheet"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("data").Parse(pageText))

// How much of it a page shows.
const (
	shownTrain   = 48
	shownTest    = 16
	shownClasses = 1000
	shownLines   = 50
	thumbnail    = 112 // pixels
)

// page is what the template is filled with.
type page struct {
	*Report
	Sheets      []contactSheet
	Bars        []classBar
	MoreClasses int
	SizeBars    []sizeBar
	Lists       []lines
}

type contactSheet struct {
	Name     string
	Images   int
	Pictures []picture
}

type picture struct {
	Path, Class string
	Image       template.URL // empty: it cannot be read
}

type classBar struct {
	Class
	Share int // of the largest, per cent
}

type sizeBar struct {
	Bin
	Share int
}

// lines are the first of many.
type lines struct {
	Name        string
	Total, More int
	Lines       []Fault
}

// Page writes the report as one page of HTML that needs nothing else, with a contact
// sheet of images spread evenly over each split. What comes from files is text there,
// whatever it holds.
func (r *Report) Page(ctx context.Context, set *data.Set, w io.Writer) error {
	p := page{Report: r}
	splits := []struct {
		name string
		d    data.Dataset
		most int
	}{{"training", set.Train, shownTrain}, {"test", set.Test, shownTest}}
	for _, s := range splits {
		if s.d == nil {
			continue
		}
		shown, err := pictures(ctx, s.d, r.ByClass, s.most)
		if err != nil {
			return err
		}
		p.Sheets = append(p.Sheets, contactSheet{s.name, s.d.Len(), shown})
	}
	most := 1
	for _, c := range r.ByClass {
		most = max(most, c.Train)
	}
	for _, c := range r.ByClass[:min(len(r.ByClass), shownClasses)] {
		p.Bars = append(p.Bars, classBar{c, 100 * c.Train / most})
	}
	p.MoreClasses = len(r.ByClass) - len(p.Bars)
	most = 1
	for _, b := range r.Sizes.ShorterSide {
		most = max(most, b.Images)
	}
	for _, b := range r.Sizes.ShorterSide {
		p.SizeBars = append(p.SizeBars, sizeBar{b, 100 * b.Images / most})
	}
	var twice []Fault
	for _, d := range r.Duplicates {
		twice = append(twice, Fault{d.Paths[0], "= " + strings.Join(d.Paths[1:min(len(d.Paths), 4)], " = ")})
	}
	for _, l := range []lines{{Name: "Cannot be read", Lines: r.Unreadable}, {Name: "Corrupt images", Lines: r.Corrupt}, {Name: "Images that are there more than once", Lines: twice}} {
		if l.Total = len(l.Lines); l.Total > 0 {
			l.Lines = l.Lines[:min(l.Total, shownLines)]
			l.More = l.Total - len(l.Lines)
			p.Lists = append(p.Lists, l)
		}
	}
	return pageTemplate.Execute(w, p)
}

// pictures are thumbnails of images spread evenly over d.
func pictures(ctx context.Context, d data.Dataset, classes []Class, most int) ([]picture, error) {
	decoder := data.NewDecoder()
	defer decoder.Close()
	d = data.Limit(d, most)
	var list []picture
	for sample := range d.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := picture{Path: d.Path(sample)}
		if label := int(d.Label(sample)); label >= 0 && label < len(classes) {
			p.Class = classes[label].Name
		}
		img, err := d.Decode(sample, decoder)
		var bad *data.CorruptError
		switch {
		case errors.As(err, &bad):
		case err != nil:
			return nil, fmt.Errorf("contact sheet: %w", err)
		default:
			if p.Image, err = sheet.Embedded(sheet.Thumbnail(img, thumbnail)); err != nil {
				return nil, err
			}
		}
		decoder.Trim()
		list = append(list, p)
	}
	return list, nil
}
