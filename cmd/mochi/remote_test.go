package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mochi/replica/data/remote/s3/s3test"
)

// shardServer serves a folder of shards, now and then badly.
type shardServer struct {
	*httptest.Server
	rude     atomic.Bool
	requests atomic.Int64
}

func serveShards(t *testing.T, dir string) *shardServer {
	t.Helper()
	s := &shardServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := s.requests.Add(1); s.rude.Load() && n%13 == 2 {
			w.Header().Set("Retry-After", "0")
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		} else if s.rude.Load() && n%13 == 8 {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Query().Get("sig") != "hunter2" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		content, err := os.ReadFile(filepath.Join(dir, filepath.Base(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	return s
}

// Training from a web server gives the bits of training from the files, killed in the
// middle of an epoch and resumed with an empty cache too; by a server that fails now and
// then. Shards of another content are refused, by name, though their names and lengths
// are the same. The signature in the address is told nowhere.
func TestTrainFromElsewhere(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	mochi(t, "data", "pack", photos(t, 50, "Kühe", "猫"), filepath.Join(dir, "train-{000..}.tar"), "--shard-size", "64k")
	shards, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(shards) < 3 {
		t.Fatalf("%d shards, %v", len(shards), err)
	}
	names := fmt.Sprintf("train-{000..%03d}.tar", len(shards)-1)
	server := serveShards(t, dir)
	there := server.URL + "/d/" + names + "?sig=hunter2"
	args := func(data, out, cache string, steps int) []string {
		return append([]string{"train", "--data", data, "--out", filepath.Join(root, out), "--cache-dir", filepath.Join(root, cache), "--cache-bytes", "64M",
			"--replicas", "2", "--steps", fmt.Sprint(steps), "--checkpoint-every", "3"}, tiny...)
	}
	files, killed := filepath.Join(root, "files"), filepath.Join(root, "killed")
	mochi(t, args(filepath.Join(dir, names), "files", "none", 20)...)

	server.rude.Store(true)
	p := start(t, args(there, "killed", "cache1", 20)...)
	awaitStep(t, killed, 9, p)
	p.cmd.Process.Kill()
	p.wait()
	before := server.requests.Load()
	p = start(t, args(there, "killed", "cache2", 20)...)
	p.mustEnd(0)
	if server.requests.Load() == before {
		t.Error("an empty cache asked for nothing")
	}
	mustEqual(t, files, killed)
	checkSamples(t, killed, 20, files)

	server.rude.Store(false)
	content, err := os.ReadFile(shards[1])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte("IDAT"))
	content[at+8] ^= 1
	if err := os.WriteFile(shards[1], content, 0o644); err != nil {
		t.Fatal(err)
	}
	p = start(t, args(there, "killed", "cache3", 24)...)
	if status := p.wait(); status == 0 || !strings.Contains(p.errs.String(), "the content of train-001.tar has changed") {
		t.Errorf("with another shard: status %d\n%s", status, p.errs.String())
	}
	fresh := append(args(there, "fresh", "cache3", 24), "--resume", filepath.Join(killed, "checkpoints", "latest.safetensors"))
	refused(t, 2, fresh, "the content of train-001.tar has changed since the checkpoint of step 20")
	saysNowhere(t, root, "hunter2")
	if strings.Contains(p.errs.String()+p.out.String(), "hunter2") {
		t.Errorf("the signature is told:\n%s", p.errs.String())
	}
}

// Likewise from a real S3 server, whose keys are told nowhere.
func TestTrainFromS3(t *testing.T) {
	root, dir := t.TempDir(), filepath.Join(s3test.Start(t), "bucket")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mochi(t, "data", "pack", photos(t, 50, "Kühe", "猫"), filepath.Join(dir, "train-{000..}.tar"), "--shard-size", "64k")
	shards, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(shards) < 3 {
		t.Fatalf("%d shards, %v", len(shards), err)
	}
	names := fmt.Sprintf("train-{000..%03d}.tar", len(shards)-1)
	args := func(data, out, cache string) []string {
		return append([]string{"train", "--data", data, "--out", filepath.Join(root, out), "--cache-dir", filepath.Join(root, cache), "--steps", "20", "--checkpoint-every", "3"}, tiny...)
	}
	mochi(t, args(filepath.Join(dir, names), "files", "none")...)
	p := start(t, args("s3://bucket/"+names, "killed", "cache1")...)
	awaitStep(t, filepath.Join(root, "killed"), 9, p)
	p.cmd.Process.Kill()
	p.wait()
	p = start(t, args("s3://bucket/"+names, "killed", "cache2")...)
	p.mustEnd(0)
	mustEqual(t, filepath.Join(root, "files"), filepath.Join(root, "killed"))
	checkSamples(t, filepath.Join(root, "killed"), 20, filepath.Join(root, "files"))
	saysNowhere(t, root, s3test.Secret)
	saysNowhere(t, root, s3test.KeyID)
}

// saysNowhere checks that no file below a folder has a secret.
func saysNowhere(t *testing.T, root, secret string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			files++
			if b, err = os.ReadFile(path); bytes.Contains(b, []byte(secret)) {
				t.Errorf("a secret is in %s", path)
			}
		}
		return err
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// What is wrong with --data or --cache-bytes is a fault like any other, before anything
// starts.
func TestFaultsOfElsewhere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	cache := filepath.Join(t.TempDir(), "cache")
	for address, want := range map[string]string{
		server.URL + "/train-{000..003}.tar":        "there is no such file (404 Not Found)",
		"https://me:hunter2@host/train-000.tar":     "a user or password in the address",
		server.URL + "/train-000.tar.gz":            "nothing packed",
		"gs://bucket/train-{000..003}.tar":          "AWS_ENDPOINT_URL",
		"s3://bucket/train-{000..003}.tar?x=hunter": "nothing behind a question mark",
	} {
		refused(t, 2, []string{"bench", "input", "--data", address, "--cache-dir", cache}, want)
	}
	refused(t, 2, []string{"bench", "input", "--data", server.URL + "/train-000.tar", "--cache-dir", cache, "--cache-bytes", "1M"}, "raise --cache-bytes")
	refused(t, 2, []string{"bench", "input", "--data", server.URL + "/train-000.tar", "--cache-bytes", "much"}, "want a number of bytes, such as 200G")
}
