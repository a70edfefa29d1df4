package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// machine is a process that runs launches on the CPU: the kernels behind
// testdata/host.h and host.cpp, compiled by g++.
type machine struct {
	table  []Kernel
	cmd    *exec.Cmd
	in     *bufio.Writer
	out    *bufio.Reader
	stderr *bytes.Buffer
}

// compiled is the path of that program, made once a test run.
var compiled = sync.OnceValues(func() (string, error) { return build(Source(), Table) })

func TestMain(m *testing.M) {
	code := m.Run()
	if program, err := compiled(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// errNoCompiler skips the tests.
var errNoCompiler = errors.New("no C++ compiler (g++, or $CXX): kernels are not run on the CPU")

// build compiles a program's source into a new folder. Undefined behaviour
// traps; nothing is fused that the source does not fuse.
func build(source string, table []Kernel) (string, error) {
	cxx := os.Getenv("CXX")
	if cxx == "" {
		cxx = "g++"
	}
	if _, err := exec.LookPath(cxx); err != nil {
		return "", errNoCompiler
	}
	dir, err := os.MkdirTemp("", "mochi-kernels-")
	if err != nil {
		return "", err
	}
	var text strings.Builder
	part := func(name string) error {
		path, err := filepath.Abs(filepath.Join("testdata", name))
		fmt.Fprintf(&text, "#include %q\n", path)
		return err
	}
	if err := part("host.h"); err != nil {
		return "", err
	}
	text.WriteString(source + dispatch(table) + "#line 1 \"host.cpp\"\n")
	if err := part("host.cpp"); err != nil {
		return "", err
	}
	main := filepath.Join(dir, "main.cpp")
	if err := os.WriteFile(main, []byte(text.String()), 0o600); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "kernels")
	out, err := exec.Command(cxx, "-std=c++17", "-O1", "-w", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fno-strict-aliasing",
		"-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-o", program, main).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile the kernels for the CPU: %w\n%s", err, out)
	}
	return program, nil
}

// dispatch is C++ that finds a kernel by name. Function pointers of the
// table's types: a parameter that differs by type does not compile.
func dispatch(table []Kernel) string {
	var b strings.Builder
	b.WriteString("#line 1 \"dispatch\"\n#include <string>\nstatic void (*dispatch(const std::string &name))(void **) {\n")
	for _, k := range table {
		for name, t := range k.symbols() {
			var kinds, args []string
			for i, p := range k.Params {
				kind := strings.ReplaceAll(string(p.Kind), "T *", t+" *")
				kinds = append(kinds, kind)
				args = append(args, fmt.Sprintf("*(%s *)a[%d]", kind, i))
			}
			fmt.Fprintf(&b, "if (name == %q) return [](void **a) { void (*f)(%s) = %s; f(%s); };\n",
				name, strings.Join(kinds, ", "), name, strings.Join(args, ", "))
		}
	}
	b.WriteString("return nullptr;\n}\n")
	return b.String()
}

// symbols are the kernel's entry points, with what T stands for.
func (k Kernel) symbols() map[string]string {
	if !k.Typed {
		return map[string]string{k.Name: ""}
	}
	return map[string]string{Name(k.Name, F32): "float", Name(k.Name, BF16): "bf16"}
}

func start(program string, table []Kernel) (*machine, error) {
	m := &machine{table: table, cmd: exec.Command(program), stderr: &bytes.Buffer{}}
	in, err := m.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stderr = m.stderr
	m.in, m.out = bufio.NewWriterSize(in, 1<<16), bufio.NewReaderSize(out, 1<<16)
	return m, m.cmd.Start()
}

// newMachine starts a machine for one test.
func newMachine(t testing.TB) *machine {
	t.Helper()
	program, err := compiled()
	if errors.Is(err, errNoCompiler) && os.Getenv("MOCHI_TEST_GPU") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return newMachineOf(t, program, Table)
}

func newMachineOf(t testing.TB, program string, table []Kernel) *machine {
	t.Helper()
	m, err := start(program, table)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.cmd.Process.Kill() // it may already have ended with a message
		m.cmd.Wait()
	})
	return m
}

// orders in which blocks, and the threads of a block, take turns: rising,
// falling, shuffled. What a kernel computes must not depend on it.
const orders = 3

// run launches a kernel on args, in the table's order: int for int, int64 for
// long long, uint64 for unsigned long long, float32, slices for pointers (the
// same slice twice is the same memory) and nil for null. Slices are updated.
func (m *machine) run(t testing.TB, name string, l Launch, args ...any) {
	t.Helper()
	if err := m.try(name, l, args...); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) try(name string, l Launch, args ...any) error {
	if err := m.checkKinds(name, args); err != nil {
		return err
	}
	var buffers [][]byte
	place := map[unsafe.Pointer]int{}
	type value struct {
		kind uint32
		bits uint64
	}
	values := make([]value, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case int:
			values[i].bits = uint64(uint32(int32(a)))
		case int64:
			values[i].bits = uint64(a)
		case uint64:
			values[i].bits = a
		case float32:
			values[i].bits = uint64(*(*uint32)(unsafe.Pointer(&a)))
		default:
			b := memory(a)
			if b == nil {
				continue
			}
			at, ok := place[unsafe.Pointer(unsafe.SliceData(b))]
			if !ok {
				at = len(buffers)
				place[unsafe.Pointer(unsafe.SliceData(b))] = at
				buffers = append(buffers, b)
			}
			values[i] = value{1, uint64(at)}
		}
	}
	var first [][]byte
	for order := range orders {
		request := []any{uint32(len(name)), []byte(name)}
		for _, v := range []int{l.Grid[0], l.Grid[1], l.Grid[2], l.Block[0], l.Block[1], l.Block[2], l.Shared, order} {
			request = append(request, uint32(v))
		}
		request = append(request, uint32(len(buffers)))
		for _, b := range buffers {
			request = append(request, uint64(len(b)), b)
		}
		request = append(request, uint32(len(values)))
		for _, v := range values {
			request = append(request, v.kind, v.bits)
		}
		for _, r := range request {
			binary.Write(m.in, binary.LittleEndian, r) // an error stays in m.in until Flush
		}
		if err := m.in.Flush(); err != nil {
			return m.ended(err)
		}
		results := make([][]byte, len(buffers))
		for i, b := range buffers {
			results[i] = make([]byte, len(b))
			if _, err := io.ReadFull(m.out, results[i]); err != nil {
				return m.ended(err)
			}
			if order > 0 && !bytes.Equal(results[i], first[i]) {
				return fmt.Errorf("kernel %s: buffer %d depends on the order in which threads run", name, i)
			}
		}
		if order == 0 {
			first = results
		}
	}
	for i, b := range buffers {
		copy(b, first[i])
	}
	return nil
}

// ended is why the process is gone.
func (m *machine) ended(err error) error {
	m.cmd.Wait()
	if m.stderr.Len() > 0 {
		return errors.New(strings.TrimSpace(m.stderr.String()))
	}
	return fmt.Errorf("the kernels' process has ended: %w", err)
}

// memory views a slice as bytes; nil for a nil.
func memory(slice any) []byte {
	if slice == nil {
		return nil
	}
	v := reflect.ValueOf(slice)
	if v.IsNil() {
		return nil
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), v.Len()*int(v.Type().Elem().Size()))
}

// checkKinds holds Go arguments against the table.
func (m *machine) checkKinds(name string, args []any) error {
	for _, k := range m.table {
		t, ok := k.symbols()[name]
		if !ok {
			continue
		}
		if len(args) != len(k.Params) {
			return fmt.Errorf("kernel %s: %d arguments, want %d", name, len(args), len(k.Params))
		}
		for i, p := range k.Params {
			want := strings.ReplaceAll(strings.TrimPrefix(string(p.Kind), "const "), "T *", t+" *")
			got := goKinds[fmt.Sprintf("%T", args[i])]
			if got != want && !(args[i] == nil && strings.HasSuffix(want, "*")) {
				return fmt.Errorf("kernel %s: %s is %T (%s), want %s", name, p.Name, args[i], got, want)
			}
		}
		return nil
	}
	return fmt.Errorf("kernel %s is not in the table", name)
}

var goKinds = map[string]string{
	"int": "int", "int64": "long long", "uint64": "unsigned long long", "float32": "float",
	"[]float32": "float *", "[]uint16": "bf16 *", "[]uint8": "unsigned char *", "[]int32": "int *",
	"[]uint64": "unsigned long long *", "[]kernel.Weight": "weight *", "[]float64": "double *",
	"[]kernel.Piece": "piece *", "[]kernel.Tensor": "tensor *",
}
