//go:build gpu

package driver

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mochi/model/engine/cuda/emulator"
)

func TestMain(m *testing.M) { os.Exit(emulator.Main(m, false)) }

func open(t *testing.T, number int) *Device {
	t.Helper()
	d, err := Open(number)
	if err != nil {
		t.Fatal(err)
	}
	leave, err := d.Enter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		leave()
	})
	return d
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestWithoutDriver is what happens on a machine without a driver: the program
// starts, and says what it looked for. It runs this binary again, so that the
// trampolines find nothing.
func TestWithoutDriver(t *testing.T) {
	if os.Getenv("MOCHI_TEST_WITHOUT_DRIVER") != "" {
		err := Status()
		if _, openErr := Open(0); !errors.Is(err, ErrNoDriver) || !errors.Is(openErr, ErrNoDriver) {
			t.Errorf("%v, open: %v", err, openErr)
		}
		t.Log(err)
		return
	}
	if _, err := os.Stat("/proc/driver/nvidia/version"); err == nil {
		t.Skip("this machine has a driver")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestWithoutDriver$", "-test.v")
	cmd.Env = append(os.Environ(), "MOCHI_TEST_WITHOUT_DRIVER=1", "MOCHI_CUDA_LIBRARIES="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "/libcuda.so.1, libcuda.so.1; is the NVIDIA driver installed") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDevices(t *testing.T) {
	emulator.Only(t)
	d := open(t, 1)
	if d.Number != 1 || d.Name != "Emulated GPU" || d.Major != 8 || d.Minor != 0 || d.Memory != 4<<30 || d.Driver != 12040 {
		t.Errorf("%+v", d.Properties)
	}
	for _, number := range []int{-1, 2} {
		if _, err := Open(number); err == nil || !strings.Contains(err.Error(), "devices 0 to 1") {
			t.Errorf("device %d: %v", number, err)
		}
	}
}

func TestMemory(t *testing.T) {
	emulator.Only(t)
	d := open(t, 0)
	s := must(d.NewStream())
	defer s.Close()
	before := must(d.Free())
	m := must(d.Alloc(4 * 1000))
	if free := must(d.Free()); free != before-4000 {
		t.Errorf("%d bytes free, were %d", free, before)
	}
	in, out := must(d.AllocPinned(1000)), must(d.AllocPinned(1000))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range in.Floats(1000) {
		in.Floats(1000)[i] = float32(i)
		out.Floats(1000)[i] = -1
	}
	// A new block is zero; copies and clearing come in the stream's order.
	check(s.Download(out.Floats(1000)[:3], m.Pointer))
	check(s.Upload(m.Pointer.Add(40), in.Floats(1000)[10:]))
	check(s.Zero(m.Pointer.Add(400), 400))
	check(s.Download(out.Floats(1000)[3:], m.Pointer.Add(12)))
	if out.Floats(1000)[999] != -1 {
		t.Error("a copy to pinned memory did not wait for Synchronize: the emulator hides missing waits")
	}
	check(s.Synchronize())
	for i, x := range out.Floats(1000) {
		want := float32(i)
		if i < 10 || i >= 100 && i < 200 {
			want = 0
		}
		if x != want {
			t.Fatalf("value %d is %g, want %g", i, x, want)
		}
	}
	check(m.Release())
	check(in.Release())
	check(out.Release())
	emulator.Record(t)
	// Wrong use is seen.
	if err := s.Upload(m.Pointer, []float32{1}); err == nil {
		t.Error("an upload into released memory gives no error")
	}
	emulator.Fault(t)
}

func TestOutOfMemory(t *testing.T) {
	emulator.Only(t)
	d := open(t, 0)
	m := must(d.Alloc(1 << 30))
	_, err := d.Alloc(3<<30 + 1)
	var full *OutOfMemory
	if !errors.As(err, &full) || full.Want != 3<<30+1 || full.Free != 3<<30 || full.Total != 4<<30 {
		t.Errorf("%v", err)
	}
	if err := m.Release(); err != nil {
		t.Error(err)
	}
}

// A second stream waits for an event of the first, and for nothing after it.
func TestEvents(t *testing.T) {
	emulator.Only(t)
	d := open(t, 0)
	work, copies := must(d.NewStream()), must(d.NewStream())
	defer work.Close()
	defer copies.Close()
	m, in, out := must(d.Alloc(4)), must(d.AllocPinned(1)), must(d.AllocPinned(1))
	e, done := must(d.NewEvent()), must(d.NewEvent())
	in.Floats(1)[0] = 7
	for _, err := range []error{
		work.Upload(m.Pointer, in.Floats(1)), e.Record(work), work.Zero(m.Pointer, 4),
		copies.Wait(e), copies.Download(out.Floats(1), m.Pointer), done.Record(copies), done.Synchronize(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if out.Floats(1)[0] != 7 {
		t.Errorf("%g, want 7", out.Floats(1)[0])
	}
	for _, err := range []error{work.Synchronize(), m.Release(), in.Release(), out.Release(), e.Close(), done.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
	emulator.Record(t)
}

// A capture runs nothing; every launch of its graph does, with the arguments of
// the capture and the memory's values of the launch.
func TestGraph(t *testing.T) {
	emulator.Only(t)
	d := open(t, 0)
	s := must(d.NewStream())
	defer s.Close()
	m, in, out := must(d.Alloc(4)), must(d.AllocPinned(1)), must(d.AllocPinned(1))
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in.Floats(1)[0], out.Floats(1)[0] = 1, -1
	g, err := s.Capture(func() error {
		return errors.Join(s.Upload(m.Pointer, in.Floats(1)), s.Download(out.Floats(1), m.Pointer))
	})
	check(err)
	check(s.Synchronize())
	if g.Nodes != 2 || out.Floats(1)[0] != -1 {
		t.Errorf("%d nodes; the capture has run: %g", g.Nodes, out.Floats(1)[0])
	}
	for _, v := range []float32{7, 8} {
		in.Floats(1)[0] = v
		check(g.Launch(s))
		check(s.Synchronize())
		if out.Floats(1)[0] != v {
			t.Errorf("a launch gives %g, want %g", out.Floats(1)[0], v)
		}
	}
	check(g.Close())
	check(g.Close())
	emulator.Record(t)

	// What cannot be recorded is an error, and the stream as before.
	e := must(d.NewEvent())
	check(e.Record(s))
	for what, record := range map[string]func() error{
		"wait":       s.Synchronize,
		"event":      e.Synchronize,
		"outside":    func() error { return s.Wait(e) },
		"allocation": func() error { _, err := d.Alloc(4); return err },
		"pageable":   func() error { return s.Upload(m.Pointer, make([]float32, 1)) },
	} {
		record := func() error { record(); return nil } // who forgets the error gets it at the end
		if g, err := s.Capture(record); err == nil || g.Made() || !strings.Contains(err.Error(), "end a capture: CUDA error 901") {
			t.Errorf("%s in a capture: %v", what, err)
		}
		emulator.Fault(t)
		check(s.Upload(m.Pointer, in.Floats(1)))
		check(s.Synchronize())
	}
	failed := errors.New("no")
	if _, err := s.Capture(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("an error in a capture: %v", err)
	}
	// Other threads are not concerned.
	g, err = s.Capture(func() error {
		done := make(chan error)
		go func() {
			leave, err := d.Enter()
			if err == nil {
				var other Memory
				other, err = d.Alloc(4)
				err = errors.Join(err, other.Release())
				leave()
			}
			done <- err
		}()
		return errors.Join(<-done, s.Zero(m.Pointer, 4))
	})
	check(err)
	check(errors.Join(g.Launch(s), s.Synchronize(), g.Close(), e.Close(), m.Release(), in.Release(), out.Release()))
	emulator.Record(t)
}
