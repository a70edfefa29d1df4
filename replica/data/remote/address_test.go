package remote_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"mochi/replica/data/remote"
)

// An address that cannot be read is refused before anybody is asked, with words for what
// to do; what may be a secret is not among them.
func TestAddresses(t *testing.T) {
	const secret = "hunter2"
	store, err := remote.Open(remote.Options{Folder: t.TempDir(), Transport: noTransport{}})
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{
		"https://me:hunter2@host/train-000.tar":         "a user or password in the address",
		"https://hunter2@host/train-000.tar?key=1":      "a user or password in the address",
		"s3://hunter2@bucket/train-000.tar":             "a user or password in the address",
		"https://host/train-000.tar#hunter2":            "a #",
		"s3://bucket/train-000.tar?versionId=hunter2":   "nothing behind a question mark",
		"gs://bucket/train-000.tar":                     "AWS_ENDPOINT_URL=https://storage.googleapis.com",
		"ftp://host/train-000.tar":                      "not from ftp",
		"file:///train-000.tar":                         "not from file",
		"https://host":                                  "want shards",
		"https://host/":                                 "want shards",
		"https://host/images":                           "want shards",
		"https://host/train-000.tar.gz":                 "nothing packed",
		"https://host/train-*.tar":                      "a server cannot be asked for *",
		"https://host/train-{000..}.tar":                "without its last number",
		"https://host/train-{003..001}.tar":             "not of the form",
		"https://host/train-{000..001.tar":              "without its }",
		"https://host/{a,a}.tar":                        "names a.tar twice",
		"https:///train-000.tar":                        "names no host",
		"s3:///train-000.tar":                           "names no bucket",
		"https://{a,b}/train-000.tar":                   "names no host",
		"https://ho st/train-000.tar":                   "is no address",
		"https://host:port/train-000.tar?token=hunter2": "is no address",
	} {
		if !remote.Is(pattern) {
			t.Errorf("%s is taken for a path", pattern)
		}
		_, _, err := store.Find(t.Context(), pattern)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", pattern, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("a secret is told: %v", err)
		}
	}
	for _, path := range []string{"/data/train-000.tar", "train-{000..146}.tar", "fashion-mnist", "C:/x", "a/b://c"} {
		if remote.Is(path) {
			t.Errorf("%s is taken for an address", path)
		}
	}
}

type noTransport struct{}

func (noTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("asked for %s", r.URL)
}

// What stands behind a question mark goes to the server, and nowhere else: not into
// names, errors, or the cache.
func TestSecretsStaySecret(t *testing.T) {
	const secret = "hunter2"
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, three())
		folder := t.TempDir()
		var told strings.Builder
		var mu sync.Mutex
		store := s.open(folder, func(o *remote.Options) {
			o.Progress = func(text string) {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintln(&told, text)
			}
		})
		s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool {
			if r.URL.Query().Get("sig") != secret {
				http.Error(w, "no", http.StatusForbidden)
				return true
			}
			if n%3 == 2 {
				panic(http.ErrAbortHandler) // told as trouble
			}
			return false
		})
		pattern := "http://host/d/train-{000..002}.tar?sig=" + secret
		objects, err := indexed(store, pattern)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&told, remote.Shown(pattern), remote.Pin(objects))
		for _, o := range objects {
			fmt.Fprintln(&told, o.Name())
		}
		s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool { panic(http.ErrAbortHandler) })
		if err := os.RemoveAll(filepath.Join(folder, "shards")); err != nil {
			t.Fatal(err)
		}
		_, err = objects[0].ReadAt(make([]byte, 10), 0)
		fmt.Fprintln(&told, err)
		_, _, err = store.Find(t.Context(), "http://nowhere/train-{0..1}.tar?sig="+secret)
		fmt.Fprintln(&told, err)
		if err == nil || !strings.Contains(told.String(), "asking again") {
			t.Errorf("no trouble was told: %v\n%s", err, told.String())
		}
		if strings.Contains(told.String(), secret) {
			t.Errorf("the secret is told:\n%s", told.String())
		}
		err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if strings.Contains(string(b)+path, secret) {
				t.Errorf("the secret is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// A test split lies beside the training split under its name, and is counted up; a page
// that says that there is nothing is no shard.
func TestTestSplitBeside(t *testing.T) {
	shard := tarOf(7, 2)
	for _, c := range []struct {
		pattern string
		there   []string
		want    []string
	}{
		{"/train-{000..001}.tar", []string{"/train-000.tar", "/train-001.tar", "/val-000.tar", "/val-001.tar", "/val-003.tar"}, []string{"/val-000.tar", "/val-001.tar"}},
		{"/train-000.tar", []string{"/train-000.tar", "/test-001.tar", "/test-002.tar"}, []string{"/test-001.tar", "/test-002.tar"}},
		{"/a/train.tar", []string{"/a/train.tar", "/a/valid.tar", "/a/test.tar"}, []string{"/a/valid.tar"}},
		{"/in1k-train2017-{0..1}.tar", []string{"/in1k-train2017-0.tar", "/in1k-train2017-1.tar", "/in1k-val2017-0.tar"}, []string{"/in1k-val2017-0.tar"}},
		{"/train-{00..01}.tar", []string{"/train-00.tar", "/train-01.tar", "/val-000.tar"}, nil},
		{"/{x,y}.tar", []string{"/x.tar", "/y.tar", "/val.tar"}, nil},
		{"/train/a-{0..1}.tar", []string{"/train/a-0.tar", "/train/a-1.tar"}, nil},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := map[string][]byte{}
				for _, name := range c.there {
					files[name] = shard
				}
				for i := range 12 { // more than are looked for at a time
					if c.want != nil && c.want[0] == "/val-000.tar" && i > 3 {
						files[fmt.Sprintf("/val-%03d.tar", i)] = shard
					}
				}
				s := newSite(t, files)
				s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool {
					if files[r.URL.Path] == nil {
						fmt.Fprintf(w, "<html>%s there is nothing here, but this page is long%s</html>", r.URL.Path, strings.Repeat(" ", 1000))
						return true
					}
					return false
				})
				_, test, err := s.open(t.TempDir(), nil).Find(t.Context(), "http://host"+c.pattern)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, o := range test {
					got = append(got, strings.TrimPrefix(o.Name(), "http://host"))
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%v, want %v", got, c.want)
				}
			})
		})
	}
	t.Run("many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			files := map[string][]byte{"/train-0000.tar": shard}
			for i := range 29 {
				files[fmt.Sprintf("/val-%04d.tar", i)] = shard
			}
			_, test, err := newSite(t, files).open(t.TempDir(), nil).Find(t.Context(), "http://host/train-0000.tar")
			if err != nil || len(test) != 29 {
				t.Errorf("%d, %v", len(test), err)
			}
		})
	})
}

// Shown never has what may be a secret, whatever it is given.
func FuzzShown(f *testing.F) {
	for _, s := range []string{"https://a:b@c/d?e#f", "s3://x@y@z/", "http://", "://", "https://h?x/y@z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !remote.Is(s) {
			return
		}
		shown := remote.Shown(s)
		_, rest, _ := strings.Cut(shown, "://")
		host, _, _ := strings.Cut(rest, "/")
		if strings.ContainsAny(rest, "?#") || strings.Contains(host, "@") {
			t.Errorf("%q is shown as %q", s, shown)
		}
	})
}
