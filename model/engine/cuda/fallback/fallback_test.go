package fallback

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
)

// A device gets the newest program that is not newer than it, with the PTX as
// it was; what is missing, damaged, for later devices or of another source is
// not taken.
func TestFind(t *testing.T) {
	const source = "__global__ void f() {}"
	folder := func() fstest.MapFS {
		files := fstest.MapFS{}
		for _, arch := range Archs {
			p := Program{Arch: arch, Compiler: "11.8", PTX: []byte(".version 7.8\n.target sm_" + Name(arch) + "\n\x00")}
			files["ptx/"+Name(arch)] = &fstest.MapFile{Data: p.File(source)}
		}
		return files
	}
	for arch, want := range map[int]int{70: 70, 75: 70, 80: 80, 89: 80, 90: 80, 120: 80} {
		p, err := find(folder(), source, arch)
		if err != nil || p.Arch != want || p.Compiler != "11.8" {
			t.Errorf("%d: %+v, %v", arch, p, err)
		}
		if !bytes.Contains(p.PTX, []byte("\n.version 7.8\n.target sm_"+Name(want)+"\n")) || bytes.Contains(p.PTX, []byte{0}) {
			t.Errorf("%d: %q", arch, p.PTX)
		}
	}
	newest := folder()
	delete(newest, "ptx/"+Name(70))
	if p, err := find(newest, source, 90); err != nil || p.Arch != 80 {
		t.Errorf("without the oldest: %+v, %v", p, err)
	}
	damaged := folder()
	damaged["ptx/"+Name(80)].Data = []byte(".version 7.8")
	swapped := folder()
	swapped["ptx/"+Name(80)] = swapped["ptx/"+Name(70)]
	for says, f := range map[string]func() (Program, error){
		"made without NVRTC":                                   func() (Program, error) { return find(fstest.MapFS{}, source, 90) },
		"of another source: make build-gpu":                    func() (Program, error) { return find(folder(), source+" ", 90) },
		"later devices than one of compute capability 7.5":     func() (Program, error) { return find(newest, source, 75) },
		"of another source":                                    func() (Program, error) { return find(swapped, source, 90) },
		"no PTX that tools/ptx made":                           func() (Program, error) { return find(damaged, source, 90) },
		"for later devices than one of compute capability 6.1": func() (Program, error) { return find(folder(), source, 61) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// The build embeds the folder even where nothing was made.
func TestEmbedded(t *testing.T) {
	if _, err := embedded.ReadFile("ptx/README"); err != nil {
		t.Error(err)
	}
}
