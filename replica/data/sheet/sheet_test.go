package sheet

import (
	"errors"
	"image/color"
	"testing"

	"mochi/replica/augment"
	"mochi/replica/data"
)

// shades are images of one colour each; number 1 is corrupt.
type shades int

func (s shades) Len() int        { return int(s) }
func (s shades) Classes() int    { return 0 }
func (s shades) Label(int) int32 { return -1 }
func (s shades) Path(int) string { return "shade" }
func (s shades) Decode(i int, d *data.Decoder) (*augment.Image, error) {
	if i == 1 {
		return nil, &data.CorruptError{Path: "shade", Err: errors.New("corrupt")}
	}
	img := d.Image(60, 30)
	for j := range img.Pix {
		img.Pix[j] = uint8(40*i + j%3)
	}
	return img, nil
}

// Original and views stand where they belong, in the right colours.
func TestSheet(t *testing.T) {
	recipe, err := augment.New(augment.None, 48)
	if err != nil {
		t.Fatal(err)
	}
	m, corrupt, err := Draw(t.Context(), shades(3), recipe, Options{Images: 9, Columns: 2})
	if err != nil {
		t.Fatal(err)
	}
	const cell = 96 // 48, twice as large
	group := 3*(cell+margin) + 2*margin
	if b := m.Bounds(); b.Dx() != 2*group || b.Dy() != 2*(cell+margin)+margin || len(corrupt) != 1 {
		t.Fatalf("sheet of %v, %d corrupt", b, len(corrupt))
	}
	at := func(image, picture int) color.RGBA {
		return m.RGBAAt(image%2*group+margin+picture*(cell+margin)+cell/2, image/2*(cell+margin)+margin+cell/2)
	}
	for _, i := range []int{0, 2} {
		for picture := range 3 {
			if got, want := at(i, picture), (color.RGBA{uint8(40 * i), uint8(40*i + 1), uint8(40*i + 2), 255}); got != want {
				t.Errorf("image %d, picture %d: %v, want %v", i, picture, got, want)
			}
		}
	}
	if c := at(1, 0); c.R < 150 || c.G > 60 {
		t.Errorf("a corrupt image is %v", c)
	}
	if c := m.RGBAAt(margin+cell/2, margin+4); c != (color.RGBA{255, 255, 255, 255}) {
		t.Errorf("beside a wide original: %v", c)
	}
}
