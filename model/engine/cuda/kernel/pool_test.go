package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// A window's geometry: images, channels, height, width, kernel, stride, pad.
var windows = [][7]int{{1, 1, 5, 4, 2, 2, 0}, {2, 3, 7, 9, 3, 2, 1}, {3, 16, 8, 8, 3, 2, 1}, {1, 33, 6, 5, 3, 1, 1}, {2, 64, 12, 12, 3, 2, 1}, {1, 8, 20, 17, 15, 7, 7}}

// windowCases are those and fuzzed ones; a kernel always meets the image.
func windowCases() [][7]int {
	cases := slices.Clone(windows)
	for _, s := range fuzzed(8, [2]int{1, 3}, [2]int{1, 70}, [2]int{1, 14}, [2]int{1, 14}, [2]int{1, 5}, [2]int{1, 4}, [2]int{1, 3}) {
		kernel := min(s[4], s[2], s[3])
		cases = append(cases, [7]int{s[0], s[1], s[2], s[3], kernel, s[5], min(s[6]-1, kernel/2)})
	}
	return cases
}

func outputs(size, kernel, stride, pad int) int { return (size+2*pad-kernel)/stride + 1 }

func TestMaxPool(t *testing.T) { both(t, testMaxPool[float32], testMaxPool[uint16]) }

func testMaxPool[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	for _, s := range windowCases() {
		n, channels, ih, iw, kernel, stride, pad := s[0], s[1], s[2], s[3], s[4], s[5], s[6]
		oh, ow := outputs(ih, kernel, stride, pad), outputs(iw, kernel, stride, pad)
		rng := seeded(s[:]...)
		x, dy := random[T](rng, n*ih*iw*channels, 0, 1), random[T](rng, n*oh*ow*channels, 0, 1)
		for i := range x {
			if rng.IntN(4) == 0 {
				x[i] = put[T](1.5) // ties: the first wins
			}
		}
		x[len(x)/2] = put[T](math.NaN())
		scale, shift := random[float32](rng, n*channels, 1, 0.3), random[float32](rng, n*channels, 0, 1)
		for _, fused := range []bool{false, true} {
			value := func(image, r, c, channel int) float64 {
				v := get(x[((image*ih+r)*iw+c)*channels+channel])
				if fused {
					v = float64(float32(math.FMA(v, float64(scale[image*channels+channel]), float64(shift[image*channels+channel]))))
					if v < 0 {
						v = 0
					}
					v = get(put[T](v))
				}
				return v
			}
			y, arg := unwritten[T](len(dy)), make([]uint8, len(dy))
			args := []any{x, nil, nil, 1, channels, ih, iw, oh, ow, kernel, stride, pad, y, arg}
			if fused {
				args[1], args[2] = scale, shift
			}
			m.run(t, Name("maxpool", typ), Pool(typ, n, oh, ow, channels), args...)
			dx := unwritten[T](len(x))
			m.run(t, Name("maxpool_grad", typ), Pool(typ, n, ih, iw, channels), dy, arg, channels, ih, iw, oh, ow, kernel, stride, pad, dx)

			gradient, sizes := make([]float64, len(x)), make([]float64, len(x))
			for i := range dy {
				c, px, py, image := i%channels, i/channels%ow, i/channels/ow%oh, i/channels/ow/oh
				best, tap := math.Inf(-1), -1
				for k := range kernel * kernel {
					r, s := py*stride-pad+k/kernel, px*stride-pad+k%kernel
					if r < 0 || r >= ih || s < 0 || s >= iw {
						continue
					}
					if v := value(image, r, s, c); tap < 0 || v > best || v != v && best == best {
						best, tap = v, k
					}
				}
				if g := get(y[i]); g != best && !(g != g && best != best) || int(arg[i]) != tap {
					t.Fatalf("%v fused %v: output %d is %v at tap %d, want %v at %d", s, fused, i, g, arg[i], best, tap)
				}
				r, s := py*stride-pad+tap/kernel, px*stride-pad+tap%kernel
				at := ((image*ih+r)*iw+s)*channels + c
				gradient[at] += get(dy[i])
				sizes[at] += math.Abs(get(dy[i]))
			}
			// As many additions in fp32 as windows cover a pixel, then one rounding to T.
			near(t, fmt.Sprint(s, " dx"), dx, func(i int) float64 { return gradient[i] }, 1, func(i int) float64 {
				return float64(kernel*kernel)*0x1p-24*sizes[i] + epsilon[T]()*math.Abs(gradient[i])
			})
			again := unwritten[T](len(dy))
			args[12], args[13] = again, nil // no arg
			m.run(t, Name("maxpool", typ), Pool(typ, n, oh, ow, channels), args...)
			same(t, "without arg", again, func(i int) float64 { return get(y[i]) })
		}
	}
}

func TestAvgPool(t *testing.T) { both(t, testAvgPool[float32], testAvgPool[uint16]) }

func testAvgPool[T activation](t *testing.T) {
	m, typ := newMachine(t), typeOf[T]()
	cases := [][]int{{1, 1, 1}, {2, 49, 5}, {3, 16, 40}, {2, 1, 16}, {2, 100, 520}}
	for _, s := range append(cases, fuzzed(6, [2]int{1, 4}, [2]int{1, 200}, [2]int{1, 100})...) {
		n, pixels, channels := s[0], s[1], s[2]
		rng := seeded(s[:]...)
		x, dy := random[T](rng, n*pixels*channels, 0, 1), random[float32](rng, n*channels, 0, 1)
		y := unwritten[float32](n * channels)
		m.run(t, Name("avgpool", typ), AvgPool(typ, n, pixels, channels), x, pixels, channels, y)
		near(t, fmt.Sprint(s), y, func(i int) (mean float64) {
			for p := range pixels {
				mean += get(x[(i/channels*pixels+p)*channels+i%channels]) / float64(pixels)
			}
			return mean
		}, 1e-6, scale0(1))
		dx := unwritten[T](len(x))
		tile := Rows(typ, n, pixels, channels)
		m.run(t, Name("avgpool_grad", typ), tile.Launch, dy, int64(pixels), channels, tile.Chunk, dx)
		near(t, "dx", dx, func(i int) float64 {
			return float64(dy[i/(pixels*channels)*channels+i%channels]) / float64(pixels)
		}, epsilon[T]()+2e-7, scale0(4/float64(pixels)))
	}
}
