package survey

import (
	"bytes"
	"encoding/base64"
	"html"
	"image/png"
	"regexp"
	"strings"
	"testing"

	"mochi/replica/data"
)

// What files are called is text on the page, and the page asks nobody for anything;
// its pictures are those of the data, an image that cannot be read has its place.
func TestPage(t *testing.T) {
	dir := t.TempDir()
	good := encoded(t, 60, 30, 200, false, true)
	files := map[string][]byte{
		`train/<script>alert(1)<!--/"><img src=x onerror=alert(2)>.png`: good,
		`train/<script>alert(1)<!--/2.png`:                              good,
		`train/b & 'c' {{.Kind}}/3.png`:                                 good[:len(good)/2],
		`val/b & 'c' {{.Kind}}/javascript:1.png`:                        encoded(t, 9, 9, 1, false, true),
	}
	put(t, dir, files)
	set, err := data.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), set, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Page(t.Context(), set, &b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, bad := range []string{"<script", "<img src=x", "onerror=alert(2)>.png<", "<link", "url(", "http:", "https:", "<!--"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	plain := html.UnescapeString(text)
	for _, want := range append([]string{"<script>alert(1)<!--", `"><img src=x onerror=alert(2)>.png`, "b & 'c' {{.Kind}}", "Corrupt images: 1", "more than once: 1", "training: 3 of 3 images", "test: 1 of 1 images", r.Digest}, r.Verdict...) {
		if !strings.Contains(plain, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(text, "<div>cannot be read</div>"); n != 1 {
		t.Errorf("%d images cannot be read", n)
	}
	pictures := regexp.MustCompile(`src="([^"]*)"`).FindAllStringSubmatch(text, -1)
	if len(pictures) != 3 {
		t.Fatalf("%d pictures", len(pictures))
	}
	for _, p := range pictures {
		code, ok := strings.CutPrefix(html.UnescapeString(p[1]), "data:image/png;base64,")
		content, err := base64.StdEncoding.DecodeString(code)
		if err != nil || !ok {
			t.Fatalf("a picture at %.40s: %v", p[1], err)
		}
		m, err := png.Decode(bytes.NewReader(content))
		if err != nil || m.Bounds().Dx() != thumbnail || m.Bounds().Dy() != thumbnail {
			t.Fatalf("%v, %v", m, err)
		}
		if red, _, _, _ := m.At(thumbnail/2, thumbnail/2).RGBA(); red>>8 != 200 && red>>8 != 1 {
			t.Errorf("the middle of a picture has red %d", red>>8)
		}
	}
}
