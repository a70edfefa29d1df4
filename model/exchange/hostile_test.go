package exchange

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"mochi/model/exchange/pickle"
	"mochi/model/exchange/torch"
	"mochi/model/network"
)

// zipped is a zip of torch.save's form with any pickle in it.
func zipped(t *testing.T, text string, change func(h *zip.FileHeader), more ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, content string) {
		h := &zip.FileHeader{Name: "archive/" + name, Method: zip.Store}
		if change != nil {
			change(h)
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if text != "" {
		add("data.pkl", text)
	}
	for i := 0; i < len(more); i += 2 {
		add(more[i], more[i+1])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tensorPickle is a state_dict of one tensor of 4 elements of storage 0, with what
// stands in the place of its offset, size and stride.
func tensorPickle(offsetSizeStride string) string {
	return "\x80\x02}X\x0c\x00\x00\x00conv1.weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ" +
		offsetSizeStride + "\x89}tRs."
}

// call is a pickle that calls a global with a text.
func call(module, name string) string {
	return "\x80\x02c" + module + "\n" + name + "\nX\x04\x00\x00\x00true\x85R."
}

// legacy is a file of the old form around a pickle.
func legacy(text string) []byte {
	return []byte("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + text)
}

func prefixedHeader(n uint64, rest string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, n), rest...)
}

// Files that are damaged, or made to hurt who opens them, are refused with words
// that say what they are; none of them costs more than they weigh.
func TestHostileFiles(t *testing.T) {
	e := small(t, "resnet8", network.HeadLinear, 0)
	var good bytes.Buffer
	if err := Torchvision(&good, e); err != nil {
		t.Fatal(err)
	}
	storage := []string{"data/0", strings.Repeat("\x00", 16)}
	encrypted := zipped(t, "\x80\x02}.", nil)
	for _, mark := range []string{"PK\x03\x04", "PK\x01\x02"} {
		at := bytes.Index(encrypted, []byte(mark))
		encrypted[at+len(mark)+map[string]int{"PK\x03\x04": 2, "PK\x01\x02": 4}[mark]] |= 1
	}
	huge := zipped(t, "\x80\x02}.", nil)
	at := bytes.Index(huge, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(huge[at+20:], 0xfffffff0)
	binary.LittleEndian.PutUint32(huge[at+24:], 0xfffffff0)
	const three = "(K\x02K\x02t" // a tuple of two
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"empty":                            {nil, "empty"},
		"text":                             {[]byte("hello, this is no checkpoint"), "neither of torch.save nor safetensors"},
		"a picture":                        {append([]byte{0xff, 0xd8, 0xff, 0xe0}, make([]byte, 100)...), "neither"},
		"a cut zip":                        {good.Bytes()[:good.Len()/2], "cut short"},
		"a zip without its last byte":      {good.Bytes()[:good.Len()-1], "cut short"},
		"an encrypted zip":                 {encrypted, "encrypted"},
		"a compressed zip":                 {zipped(t, strings.Repeat("\x80\x02}.", 99), func(h *zip.FileHeader) { h.Method = zip.Deflate }), "compressed"},
		"a zip that says it is huge":       {huge, "more than the file"},
		"another zip":                      {zipped(t, "", nil, "word/document.xml", "<x/>"), "no data.pkl"},
		"TorchScript":                      {zipped(t, "\x80\x02}.", nil, "constants.pkl", "\x80\x02)."), "TorchScript"},
		"big endian":                       {zipped(t, "\x80\x02}.", nil, "byteorder", "big"), `byte order "big"`},
		"os.system":                        {zipped(t, call("os", "system"), nil), "it calls os.system"},
		"posix.system, old form":           {legacy(call("posix", "system")), "it calls posix.system"},
		"builtins.eval":                    {zipped(t, call("builtins", "eval"), nil), "it calls builtins.eval"},
		"Python 2's eval":                  {zipped(t, call("__builtin__", "eval"), nil), "it calls __builtin__.eval"},
		"builtins.getattr":                 {zipped(t, call("builtins", "getattr"), nil), "it calls builtins.getattr"},
		"subprocess.Popen, protocol 4":     {zipped(t, "\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93\x8c\x04true\x85R.", nil), "it calls subprocess.Popen"},
		"INST":                             {zipped(t, "(S'true'\nios\nsystem\n.", nil), "it calls os.system"},
		"OBJ":                              {zipped(t, "(cos\nsystem\nS'true'\no.", nil), "it calls os.system"},
		"a bare pickle":                    {[]byte("cposix\nsystem\n(S'true'\ntR."), "it calls posix.system"},
		"torch.hub.load":                   {zipped(t, call("torch.hub", "load"), nil), "it calls torch.hub.load"},
		"what an unknown class gives":      {zipped(t, "\x80\x02cevil\nMaker\n)R)R.", nil), "no global"},
		"an unknown class":                 {zipped(t, "\x80\x02cevil\nmodel\n)R.", nil), "class evil.model"},
		"a whole model":                    {zipped(t, "\x80\x02ctorchvision.models.resnet\nResNet\n)\x81}b.", nil), "torchvision.models.resnet.ResNet"},
		"a storage that is not there":      {zipped(t, tensorPickle("K\x00"+three+"(K\x02K\x01t"), nil), "storage \"0\" is not in the zip"},
		"a storage that is too short":      {zipped(t, tensorPickle("K\x00"+three+"(K\x02K\x01t"), nil, "data/0", "\x00\x00\x00\x00"), "has 4 bytes, not 16"},
		"a negative size":                  {zipped(t, tensorPickle("K\x00(J\xff\xff\xff\xffK\x02t(K\x02K\x01t"), nil, storage...), "make no tensor"},
		"a negative offset":                {zipped(t, tensorPickle("J\xff\xff\xff\xff"+three+"(K\x02K\x01t"), nil, storage...), "offset"},
		"a million dicts":                  {zipped(t, "\x80\x02("+strings.Repeat("}", 2<<20)+"t.", nil), "larger than that of any checkpoint"},
		"a million marks":                  {zipped(t, "\x80\x02"+strings.Repeat("(", 2<<20)+".", nil), "larger than that of any checkpoint"},
		"a million memos":                  {zipped(t, "\x80\x04]"+strings.Repeat("\x94", 2<<20)+".", nil), "larger than that of any checkpoint"},
		"a list of a million of one":       {zipped(t, "\x80\x02]q\x00("+strings.Repeat("h\x00", 2<<20)+"e.", nil), "larger than that of any checkpoint"},
		"a list in itself":                 {zipped(t, "\x80\x02]q\x00h\x00a.", nil), "holds a list"},
		"a text of 4 GB":                   {zipped(t, "\x80\x02X\xff\xff\xff\xffabc.", nil), "larger than that of any checkpoint"},
		"a text of 16 EB":                  {zipped(t, "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", nil), "larger than that of any checkpoint"},
		"a number of 2 GB":                 {zipped(t, "\x80\x02\x8b\xff\xff\xff\x7f.", nil), "larger than that of any checkpoint"},
		"values left over":                 {zipped(t, "\x80\x02}}.", nil), "left over"},
		"nothing":                          {zipped(t, "\x80\x02.", nil), "a value where there is none"},
		"a place of the memo":              {zipped(t, "\x80\x02h\x05.", nil), "place 5 of the memo"},
		"an unknown opcode":                {zipped(t, "\x80\x02\xff.", nil), "opcode 0xff"},
		"a newer protocol":                 {zipped(t, "\x80\x09}.", nil), "protocol 9"},
		"a legacy file cut short":          {legacy("\x80\x02}"), "cut short"},
		"a safetensors header of 16 EB":    {prefixedHeader(1<<63, "{}"), "neither"},
		"a safetensors header of 4 GB":     {prefixedHeader(1<<32-1, `{"a":1}`), "cut short"},
		"a safetensors header of no JSON":  {prefixedHeader(8, `{"a":1,}`), "not JSON"},
		"JSON in JSON in JSON":             {prefixedHeader(5<<20, "{\"a\":"+strings.Repeat("[", 5<<20)), "JSON"},
		"a tensor beyond the file":         {prefixedHeader(64, `{"conv1.weight":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}`)[:72], ""},
		"a shape that overflows":           {prefixedHeader(97, `{"conv1.weight":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}} `), "shape"},
		"a shape that is not its bytes":    {prefixedHeader(66, `{"conv1.weight":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}} 12345678`), "more than its storage"},
		"a safetensors file of other sums": {prefixedHeader(66, `{"linear.bias0":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} 12345678`), "none of its 1 tensors"},
	} {
		path := put(t, c.content)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := imported(path, ImportOptions{})
		runtime.ReadMemStats(&after)
		if err == nil || !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: want %q, got %v", name, c.says, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 150<<20 {
			t.Errorf("%s: it cost %d MB", name, used>>20)
		}
	}
}

// A tensor may say that it is larger than memory: it is shown many times over one
// storage. Nobody asks for it unless it has the shape of a layer.
func TestExpandedTensorsCostNothing(t *testing.T) {
	for name, strides := range map[string]string{
		"expanded":   "K\x00(J\xff\xff\xff\x7ft(K\x00t",
		"overlapped": "K\x00(J\xff\xff\x00\x00J\xff\x7f\x00\x00t(K\x00K\x00t",
		"too far":    "J\xff\xff\xff\x7f(K\x02t(K\x01t",
		"too wide":   "K\x00(K\x02t(J\xff\xff\xff\x7ft",
	} {
		path := put(t, zipped(t, tensorPickle(strides), nil, "data/0", strings.Repeat("\x00", 16)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := imported(path, ImportOptions{})
		runtime.ReadMemStats(&after)
		var missing *MissingError
		if !errors.As(err, &missing) || after.TotalAlloc-before.TotalAlloc > 50<<20 {
			t.Errorf("%s: %v, %d bytes", name, err, after.TotalAlloc-before.TotalAlloc)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if a := f.Arrays["conv1.weight"]; name != "expanded" && name != "overlapped" && a.Check() == nil {
			t.Errorf("%s: its elements lie in no storage, and that is not said", name)
		}
		f.Close()
	}
}

// Whatever bytes there are, opening and importing ends, and costs little.
func FuzzImport(f *testing.F) {
	f.Add([]byte(call("os", "system")))
	f.Add(legacy("\x80\x02}."))
	f.Add([]byte(tensorPickle("K\x00(K\x02K\x02t(K\x02K\x01t")))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		// As a file, and as the pickle of one, which a zip's checksum would hide.
		if _, err := pickle.NewReader(bytes.NewReader(content)).Next(); err == nil {
			content = append(content, content...)
		}
		path := dir + "/file"
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := imported(path, ImportOptions{}); err == nil {
			t.Errorf("an encoder: %+v", got.Loaded)
		}
		b := zipped(t, string(content)+".", nil, "data/0", strings.Repeat("\x00", 16))
		if root, err := torch.Open(bytes.NewReader(b), int64(len(b))); err == nil {
			if foreign, err := fromTorch(root); err == nil {
				for _, a := range foreign.Arrays {
					if a.Check() == nil && a.Len() < 1<<16 {
						if _, err := a.Float32s(); err != nil {
							t.Errorf("a tensor that passed its check: %v", err)
						}
					}
				}
			}
		}
	})
}
