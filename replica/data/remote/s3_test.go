package remote_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mochi/replica/data/remote"
	"mochi/replica/data/remote/s3/s3test"
)

// A real S3 server: what it has is read, to the byte; what it refuses is told in words;
// the keys are told nowhere.
func TestRealS3(t *testing.T) {
	root := s3test.Start(t)
	files := map[string][]byte{"train-000.tar": tarOf(1, 30), "train-001.tar": tarOf(2, 3), "val-000.tar": tarOf(3, 4)}
	put := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(root, "shards", "a b", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		put(name, content)
	}
	folder := t.TempDir()
	var told strings.Builder
	open := func() *remote.Store {
		s, err := remote.Open(remote.Options{Folder: folder, Block: blockSize, Bytes: 10 * blockSize})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	const there = "s3://shards/a b/train-{000..001}.tar"
	train, test, err := open().Find(t.Context(), there)
	if err != nil || len(train) != 2 || len(test) != 1 || test[0].Name() != "s3://shards/a b/val-000.tar" {
		t.Fatal(train, test, err)
	}
	objects, err := indexed(open(), there)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		want := files[filepath.Base(o.Name())]
		got := make([]byte, len(want))
		if _, err := readAll(o, got); err != nil || string(got) != string(want) {
			t.Errorf("%s: %v", o.Name(), err)
		}
	}
	content := append([]byte(nil), files["train-000.tar"]...)
	content[len(content)/2] ^= 1
	put("train-000.tar", content)
	var changed *remote.ChangedError
	if _, err := readAll(objects[0], make([]byte, len(content))); !errors.As(err, &changed) || changed.Name != "s3://shards/a b/train-000.tar" {
		t.Errorf("a shard that was exchanged: %v", err)
	}

	for _, c := range []struct{ variable, value, pattern, want string }{
		{"AWS_SECRET_ACCESS_KEY", "other", there, "403 SignatureDoesNotMatch"},
		{"AWS_SECRET_ACCESS_KEY", "", there, "set both, or neither"},
		{"AWS_REGION", "eu-west-9", there, "set AWS_REGION"},
		{"AWS_ENDPOINT_URL", "https://me:" + s3test.Secret + "@host", there, "AWS_ENDPOINT_URL is not of the form"},
		{"AWS_ENDPOINT_URL", strings.Replace(os.Getenv("AWS_ENDPOINT_URL"), "http:", "https:", 1), there, "is it http://?"},
		{"", "", "s3://nowhere/train-000.tar", "404 NoSuchBucket"},
		{"", "", "s3://shards/train-000.tar", "404 NoSuchKey"},
	} {
		t.Run(fmt.Sprint(c.variable, c.pattern), func(t *testing.T) {
			if c.variable != "" {
				t.Setenv(c.variable, c.value)
			}
			_, err := indexed(open(), c.pattern)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			fmt.Fprintln(&told, err)
		})
	}
	t.Run("anonymous", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		if _, err := indexed(open(), there); err == nil || !strings.Contains(err.Error(), "no keys were found, so it was asked for anonymously") {
			t.Errorf("error %v", err)
		}
	})
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			told.Write(b)
		}
		return err
	})
	if s := told.String(); err != nil || strings.Contains(s, s3test.Secret) || strings.Contains(s, s3test.KeyID) {
		t.Errorf("a key is told, or %v", err)
	}
}
