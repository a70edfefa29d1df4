//go:build gpu

package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"mochi/model/engine"
	"mochi/model/engine/cuda/driver"
	"mochi/model/engine/cuda/kernel"
	"mochi/model/engine/cuda/library"
	"mochi/model/network"
)

// gpu implements engine.Engine on one device. One call runs at a time.
type gpu struct {
	info engine.Info
	kind kernel.Type // of feature maps
	tf32 bool        // convolutions and linear layers on tensor cores, with kind F32

	mu      sync.Mutex // guards all below, and the device
	device  *driver.Device
	work    driver.Stream // all computation
	copies  driver.Stream // gradients to the host, beside it
	uploads driver.Stream // images to the device, beside both
	spent   spent
	dnn     *library.DNN
	blas    *library.BLAS // fp32 as it is written
	heads   *library.BLAS // of linear layers: blas, or another handle for tf32
	kernels *driver.Module
	choices *library.Choices // with Config.Tune
	space   driver.Memory    // of cuDNN's algorithms, the most that any program needs
	blasMem driver.Memory    // of cuBLAS
	single  string           // why steps are not captured as graphs; "": they are
	closed  bool

	offloads []*offload // losses that are open
}

// New starts an engine on device number cfg.Device. It fails with
// engine.ErrUnsupported where there is no driver, device or library, or where
// the device lacks the precision. Config.Threads is the CPU's part: the fold of
// the loss.
func New(cfg engine.Config) (engine.Engine, error) {
	e, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("engine cuda: %w", err)
	}
	return e, nil
}

func open(cfg engine.Config) (opened *gpu, err error) {
	e := &gpu{kind: kernel.F32}
	switch cfg.Precision {
	case "", engine.FP32:
	case engine.TF32:
		e.tf32 = true
	case engine.BF16:
		e.kind = kernel.BF16
	default:
		return nil, fmt.Errorf("precision %q: %w: there are %s, %s and %s", cfg.Precision, engine.ErrPrecision, engine.FP32, engine.TF32, engine.BF16)
	}
	if cfg.Threads < 0 {
		return nil, fmt.Errorf("threads: %d; use 0 for all cores, or at least 1", cfg.Threads)
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if e.device, err = driver.Open(cfg.Device); err != nil {
		return nil, unsupported(err)
	}
	leave, err := e.device.Enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	d := e.device.Properties
	if (e.kind == kernel.BF16 || e.tf32) && d.Major < 8 {
		return nil, fmt.Errorf("precision %s: %w: it needs compute capability 8.0, %s has %d.%d; use --precision %s",
			cfg.Precision, engine.ErrPrecision, d.Name, d.Major, d.Minor, engine.FP32)
	}
	if e.work, err = e.device.NewStream(); err != nil {
		return nil, err
	}
	if e.copies, err = e.device.NewStream(); err != nil {
		return nil, err
	}
	if e.uploads, err = e.device.NewStream(); err != nil {
		return nil, err
	}
	if e.dnn, err = library.OpenDNN(e.work); err != nil {
		return nil, unsupported(err)
	}
	if e.blas, err = library.OpenBLAS(e.work, false); err != nil {
		return nil, unsupported(err)
	}
	if e.heads = e.blas; e.tf32 {
		if e.heads, err = library.OpenBLAS(e.work, true); err != nil {
			return nil, unsupported(err)
		}
	}
	if err := e.openGraphs(); err != nil {
		return nil, err
	}
	made, err := e.loadKernels()
	if err != nil {
		return nil, unsupported(err)
	}
	e.info = engine.Info{Name: Name, Threads: threads, Versions: e.versions(made),
		Device: fmt.Sprintf("GPU %d: %s, %d GiB, compute capability %d.%d%s", d.Number, d.Name, d.Memory>>30, d.Major, d.Minor, made.note)}
	v := e.info.Versions
	e.info.Numerics = fmt.Sprintf("%s %s %v cuDNN %s, cuBLAS %s", Name, d.Name, made.target, v["cudnn"], v["cublas"])
	if cfg.Tune {
		if e.choices, err = library.OpenChoices(); err != nil {
			return nil, fmt.Errorf("tune: %w", err)
		}
		e.info.Numerics += ", algorithms measured as " + e.choices.Name
	}
	return e, nil
}

// unsupported marks the errors after which another engine may do.
func unsupported(err error) error {
	var missing *library.Missing
	if errors.Is(err, driver.ErrNoDriver) || errors.As(err, &missing) {
		return fmt.Errorf("%w: %w", engine.ErrUnsupported, err)
	}
	return err
}

// versions are Info's.
func (e *gpu) versions(made compiled) map[string]string {
	v := map[string]string{
		"cuda":   fmt.Sprintf("%d.%d", e.device.Driver/1000, e.device.Driver/10%100),
		"cudnn":  library.VersionDNN(e.dnn.Version),
		"cublas": fmt.Sprintf("%d.%d", e.blas.Version/10000, e.blas.Version/100%100),
	}
	if made.embedded {
		v["ptx"] = fmt.Sprintf("%v by NVRTC %s", made.target, made.nvrtc)
	} else {
		v["nvrtc"] = made.nvrtc
	}
	if release := driver.Release(); release != "" {
		v["driver"] = release
	}
	return v
}

func (e *gpu) Info() engine.Info {
	e.mu.Lock()
	defer e.mu.Unlock()
	info := e.info
	if e.single != "" {
		info.Device += "; without CUDA graphs: " + e.single
	}
	return info
}

// enter takes the device for one call; leave gives it back.
func (e *gpu) enter() (leave func(), err error) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, errors.New("the engine is closed")
	}
	out, err := e.device.Enter()
	if err != nil {
		e.mu.Unlock()
		return nil, err
	}
	return func() { out(); e.mu.Unlock() }, nil
}

// reserve makes room for cuDNN's algorithms.
func (e *gpu) reserve(bytes int) error {
	if bytes <= e.space.Bytes {
		return nil
	}
	// Another state's backward may be using it.
	if err := e.work.Synchronize(); err != nil {
		return err
	}
	had := e.space.Bytes
	if err := e.space.Release(); err != nil {
		return err
	}
	var err error
	if e.space, err = e.device.Alloc(bytes); err != nil && had > 0 {
		var again error
		e.space, again = e.device.Alloc(had) // other programs rely on it
		err = errors.Join(err, again)
	}
	return err
}

func (e *gpu) NewState(net *network.Network) (engine.State, error) {
	leave, err := e.enter()
	if err == nil {
		defer leave()
		var s *state
		if s, err = newState(e, net); err == nil {
			return s, nil
		}
		err = tooMany(e, net, err)
	}
	return nil, fmt.Errorf("engine cuda: state of %s: %w", net.Arch, err)
}

func (e *gpu) Products() engine.Products { return products{e} }

// Close ends the engine. States, programs and losses must be closed before.
func (e *gpu) Close() error {
	leave, err := e.enter()
	if err != nil {
		return nil // it is closed already
	}
	defer leave()
	e.closed = true
	return e.release()
}

// release frees what was made, in reverse order.
func (e *gpu) release() error {
	var all []error
	all = append(all, e.space.Release())
	if e.kernels != nil {
		all = append(all, e.kernels.Close())
	}
	if e.heads != nil && e.heads != e.blas {
		all = append(all, e.heads.Close())
	}
	if e.blas != nil {
		all = append(all, e.blas.Close())
	}
	if e.dnn != nil {
		all = append(all, e.dnn.Close())
	}
	all = append(all, e.blasMem.Release()) // its handles are gone
	for _, s := range []*driver.Stream{&e.uploads, &e.copies, &e.work} {
		if *s != (driver.Stream{}) {
			all = append(all, s.Close())
		}
	}
	return errors.Join(append(all, e.device.Close())...)
}

// products are cuBLAS's, on copies of the operands.
type products struct{ e *gpu }

func (p products) NT(m, n, k int, a, b, c []float32) { product{p.e, true, m, n, k}.run(a, b, c) }
func (p products) NN(m, n, k int, a, b, c []float32) { product{p.e, false, m, n, k}.run(a, b, c) }

// product is one of them: c [m, n] of a [m, k] and b, [n, k] when nt, else [k, n].
type product struct {
	e       *gpu
	nt      bool
	m, n, k int
}

func (p product) run(a, b, c []float32) {
	m, n, k := p.m, p.n, p.k
	if len(a) < m*k || len(b) < n*k || len(c) < m*n {
		panic(fmt.Sprintf("engine cuda: product %d×%d×%d of %d and %d values into %d", m, n, k, len(a), len(b), len(c)))
	}
	if err := p.try(a[:m*k], b[:n*k], c[:m*n]); err != nil {
		panic(fmt.Sprintf("engine cuda: product %d×%d×%d: %v", m, n, k, err))
	}
}

func (p product) try(a, b, c []float32) (err error) {
	if p.m*p.n*p.k == 0 {
		clear(c)
		return nil
	}
	leave, err := p.e.enter()
	if err != nil {
		return err
	}
	defer leave()
	room, err := p.e.device.Alloc(4 * (len(a) + len(b) + len(c) + 3*64))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, room.Release()) }()
	at := func(values int) driver.Pointer { return room.Add(4 * ((values + 63) / 64 * 64)) }
	pa, pb := room.Pointer, at(len(a))
	pc := pb.Add(4 * ((len(b) + 63) / 64 * 64))
	for _, step := range []func() error{
		func() error { return p.e.work.Upload(pa, a) },
		func() error { return p.e.work.Upload(pb, b) },
		func() error { return p.e.blas.Product(p.m, p.n, p.k, pa, false, pb, p.nt, pc) },
		func() error { return p.e.work.Download(c, pc) },
		p.e.work.Synchronize,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// bytesOf views values as bytes, for tables that kernels read.
func bytesOf[T any](v []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(one)))
}
