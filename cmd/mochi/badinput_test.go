package main

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mochi/cmd/mochi/run"
)

// put writes a file and the folders above it.
func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// picture is an image of some pattern, encoded.
func picture(t *testing.T, img interface {
	image.Image
	Set(x, y int, c color.Color)
}, pattern int, encode func(io.Writer, image.Image) error) []byte {
	t.Helper()
	b := img.Bounds()
	for y := range b.Dy() {
		for x := range b.Dx() {
			img.Set(x, y, color.NRGBA{uint8(pattern * x * 9), uint8(y * 11), uint8(pattern*40 + x*y), 255 - uint8(pattern*x)})
		}
	}
	var w bytes.Buffer
	if err := encode(&w, img); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

func jpg(w io.Writer, img image.Image) error { return jpeg.Encode(w, img, nil) }

// photos makes a folder, with spaces in its name, of n images in each class:
// colour JPEG, grey PNG and transparent PNG of several sizes in turn.
func photos(t *testing.T, n int, classes ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "my own photos")
	for c, class := range classes {
		for i := range n {
			r := image.Rect(0, 0, 14+i%3, 13+c)
			name := filepath.Join(dir, class, string(rune('a'+i)))
			switch i % 3 {
			case 0:
				put(t, name+".jpg", picture(t, image.NewRGBA(r), c+1, jpg))
			case 1:
				put(t, name+".png", picture(t, image.NewGray(r), c+1, png.Encode))
			default:
				put(t, name+".PNG", picture(t, image.NewNRGBA(r), c+1, png.Encode))
			}
		}
	}
	return dir
}

// training is a short training of few steps.
func training(data, run string, extra ...string) []string {
	return append(append([]string{"train", "--data", data, "--out", run, "--steps", "3"}, tiny...), extra...)
}

func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was written (%v)", path, err)
	}
}

// trained runs a short training to its end and returns its log.
func trained(t *testing.T, args []string) string {
	t.Helper()
	status, out, errs := call(args...)
	if status != 0 || out != "" {
		t.Fatalf("mochi %q: status %d, stdout %q\n%s", args, status, out, errs)
	}
	return errs
}

func TestNoData(t *testing.T) {
	empty, run := t.TempDir(), filepath.Join(t.TempDir(), "run")
	refused(t, 2, training(empty, run), "data: "+empty, "no JPEG, PNG, WebP, BMP, GIF or TIFF image")
	refused(t, 2, training(empty+"/gone", run), "no such folder")
	put(t, empty+"/notes.txt", []byte("no image"))
	refused(t, 2, training(empty+"/notes.txt", run), "is a file")
	refused(t, 2, training(empty, run), "no JPEG, PNG, WebP, BMP, GIF or TIFF image")
	refused(t, 2, []string{"eval", "knn", "--checkpoint", "random:resnet8", "--data", empty}, "no JPEG, PNG, WebP, BMP, GIF or TIFF image")
	refused(t, 2, []string{"bench", "input", "--data", empty}, "no JPEG, PNG, WebP, BMP, GIF or TIFF image")
	refused(t, 2, []string{"replica", "--join", "nats://127.0.0.1:1", "--data", empty}, "no JPEG, PNG, WebP, BMP, GIF or TIFF image")
	absent(t, run)
}

// Grey, transparent and colour images of all sizes, in one class, without a
// test split: trained on; what cannot be measured is said.
func TestOneClass(t *testing.T) {
	data := photos(t, 18, "cats")
	log := trained(t, training(data, filepath.Join(t.TempDir(), "run"), "--knn-every", "1"))
	for _, want := range []string{"18 training images, no test images, 1 class", "kNN accuracy is not measured: the data set has no test split", "step 1/3", "step 3/3", "1 replica"} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not said:\n%s", want, log)
		}
	}
	refused(t, 2, []string{"eval", "knn", "--checkpoint", "random:resnet8", "--data", data}, "no test split")
}

// Files that cannot be decoded are named, counted and replaced, the same in
// every run.
func TestCorruptImages(t *testing.T) {
	data := photos(t, 8, "train/cats", "train/dogs", "val/cats", "val/dogs")
	whole := picture(t, image.NewRGBA(image.Rect(0, 0, 16, 16)), 1, jpg)
	put(t, filepath.Join(data, "train/cats/text.jpg"), []byte("I am a text"))
	put(t, filepath.Join(data, "train/dogs/cut.jpg"), whole[:len(whole)-200])
	put(t, filepath.Join(data, "val/dogs/empty.png"), nil)
	root := t.TempDir()
	one, two := filepath.Join(root, "one"), filepath.Join(root, "two")
	log := trained(t, training(data, one, "--knn-every", "1"))
	for _, want := range []string{"cats/text.jpg cannot be decoded", "dogs/cut.jpg cannot be decoded", "dogs/empty.png cannot be decoded",
		"3 images could not be decoded; log.jsonl names them", "kNN before training (step 0): top-1 ", "kNN after training (step 3)"} {
		if strings.Count(log, want) != 1 {
			t.Errorf("%q is not said once:\n%s", want, log)
		}
	}
	var named []string
	for _, l := range lines[struct{ Event, Path string }](t, filepath.Join(one, "log.jsonl")) {
		if l.Event == "corrupt image" {
			named = append(named, filepath.Base(l.Path))
		}
	}
	slices.Sort(named)
	if want := []string{"cut.jpg", "empty.png", "text.jpg"}; !slices.Equal(named, want) {
		t.Errorf("log.jsonl names %q, want %q", named, want)
	}
	trained(t, training(data, two, "--replicas", "2"))
	latest := func(run string) string { return filepath.Join(run, "checkpoints", "latest.safetensors") }
	if status, out, errs := call("diff", latest(one), latest(two), "--tolerance", "0"); status != 0 {
		t.Errorf("replacing differs between runs: %s%s", out, errs)
	}
	knn := fields(t, []string{"knn_top1", "knn_top5", "train", "test", "feature"},
		"eval", "knn", "--checkpoint", latest(one), "--data", data, "--k", "5", "--kernel-temperature", "0.2", "--feature", "embedding", "--json")
	if knn["train"].(float64) != 16 || knn["test"].(float64) != 16 || knn["left_out"].(float64) != 3 || knn["feature"] != "embedding" {
		t.Errorf("kNN %v", knn)
	}
	fields(t, []string{"knn_top1"}, "eval", "knn", "--checkpoint", "random:resnet8", "--data", data, "--image-size", "12", "--json")
}

// A checkpoint that was cut short, has one bit flipped or is of another
// network is refused wherever one is read.
func TestDamagedCheckpoint(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	root := t.TempDir()
	run, other := filepath.Join(root, "run"), filepath.Join(root, "other")
	trained(t, training(data, run))
	latest := filepath.Join(run, "checkpoints", "latest.safetensors")
	good, err := os.ReadFile(latest)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)/2] ^= 4
	for name, damaged := range map[string][]byte{"cut short": good[:len(good)/2], "digest mismatch": flipped} {
		file := filepath.Join(root, "damaged.safetensors")
		put(t, file, damaged)
		refused(t, 1, []string{"inspect", file}, file, name)
		refused(t, 1, []string{"diff", latest, file}, file, name)
		refused(t, 1, []string{"eval", "knn", "--checkpoint", file, "--data", data}, file, name)
		refused(t, 2, training(data, other, "--resume", file), "resume:", file, name)
	}
	refused(t, 2, training(data, other, "--resume", latest, "--arch", "resnet20"), "arch: resnet8 ≠ resnet20")
	absent(t, other)
	before := files(t, run)
	refused(t, 2, training(data, run, "--arch", "resnet20"), "arch: resnet8 ≠ resnet20", "--resume never")
	if after := files(t, run); !slices.Equal(before, after) {
		t.Errorf("the refused run changed files: %q, were %q", after, before)
	}

	// The newest that can be read is gone on from; without any, nothing is.
	trained(t, training(data, run, "--steps", "5"))
	put(t, filepath.Join(run, "checkpoints", "step-00000005.safetensors"), flipped) // latest is the same file or a copy
	put(t, latest, flipped)
	log := trained(t, training(data, run, "--steps", "6"))
	if !strings.Contains(log, "passed over: checkpoint "+latest) || !strings.Contains(log, "step-00000003.safetensors: step 3") {
		t.Errorf("the damaged checkpoints are not passed over:\n%s", log)
	}
	checkSamples(t, run, 6, "")
	all, err := filepath.Glob(filepath.Join(run, "checkpoints", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		put(t, file, flipped)
	}
	refused(t, 1, training(data, run, "--steps", "9"), "no checkpoint in", "can be read")
}

// files lists the names, sizes and times of everything in a RUN.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			list = append(list, path+" "+info.ModTime().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A RUN folder that cannot be made, or that another process trains in.
func TestRunFolder(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	root := t.TempDir()
	put(t, filepath.Join(root, "file"), nil)
	for _, run := range []string{"file", "file/run"} {
		status, _, errs := call(training(data, filepath.Join(root, run))...)
		if status != 1 || !strings.Contains(errs, "run folder") || !strings.Contains(errs, "not a directory") {
			t.Errorf("%s: status %d\n%s", run, status, errs)
		}
	}
	folder := filepath.Join(root, "run")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := run.LockRun(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, resume := range []string{"auto", "never"} {
		status, _, errs := call(training(data, folder, "--resume", resume)...)
		if status != 1 || !strings.Contains(errs, "another mochi is training in "+folder) {
			t.Errorf("status %d\n%s", status, errs)
		}
	}
	absent(t, filepath.Join(folder, "config.yaml"))
	lock.Close()
	trained(t, training(data, folder, "--resume", "never"))
	absent(t, folder+".1") // there was nothing to move aside
	if log := trained(t, training(data, folder)); !strings.Contains(log, "is complete: 3 steps are done") {
		t.Errorf("a complete run is not called so:\n%s", log)
	}
	if log := trained(t, training(data, folder, "--resume", "never")); !strings.Contains(log, "moved the old run to "+folder+".1") {
		t.Errorf("the old run is not moved aside:\n%s", log)
	}
	// RUN/config.yaml makes the same run again, and the file it came from.
	again := filepath.Join(root, "again")
	trained(t, []string{"train", "--data", data, "--out", again, "--config", filepath.Join(folder, "config.yaml")})
	a, err := os.ReadFile(filepath.Join(folder, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(again, "config.yaml")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("config.yaml changed (%v):\n%s\nwas\n%s", err, b, a)
	}
	checkSamples(t, again, 3, folder)
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	state := filepath.Join(t.TempDir(), "state")
	refused(t, 1, append([]string{"coordinator", "--listen", l.Addr().String(), "--state", state}, tiny...),
		l.Addr().String(), "address already in use", "--listen")
	absent(t, state)
}

// A disk that is full when a checkpoint is due: the run fails and says why,
// the checkpoint before it stays, and the run goes on from there when there is
// room again. (A limit on the size of files stands for the full disk: a
// checkpoint is larger than it, the logs are not.)
func TestFullDisk(t *testing.T) {
	data := writeIDX(t, t.TempDir(), 40, 8)
	run := filepath.Join(t.TempDir(), "run")
	trained(t, training(data, run))
	p := startCommand(t, exec.Command("bash", append([]string{"-c", `ulimit -f 400; exec "$0" "$@"`, os.Args[0]}, training(data, run, "--steps", "6")...)...))
	p.mustEnd(1)
	if errs := p.errs.String(); !strings.Contains(errs, "the checkpoint of step 6 could not be stored") || !strings.Contains(errs, "step-00000006") {
		t.Errorf("not said:\n%s", errs)
	}
	info := fields(t, []string{"step", "epoch", "arch", "parameters", "queue", "digest"},
		"inspect", filepath.Join(run, "checkpoints", "latest.safetensors"), "--json")
	if info["step"].(float64) != 3 || info["arch"] != "resnet8" {
		t.Errorf("left behind: %v", info)
	}
	trained(t, training(data, run, "--steps", "6"))
	checkSamples(t, run, 6, "")
}
