package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mochi/replica/data/remote"
)

// cut ends the connection of a request after so many bytes of its answer.
func cut(w http.ResponseWriter, r *http.Request, content []byte, bytes int) {
	var from, to int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
	to = min(to, len(content)-1)
	if w.Header().Get("ETag") == "" {
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(content)))
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
	w.Header().Set("Content-Length", fmt.Sprint(to-from+1))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(content[from:min(to+1, from+bytes)])
	if to-from+1 > bytes {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// TestRudeServers: what a server does wrong for a while is survived, to the byte, and
// what it does wrong for ever is told, in time.
func TestRudeServers(t *testing.T) {
	const name = "/train-000.tar"
	content := tarOf(1, 12)
	type answer = func(w http.ResponseWriter, r *http.Request, n int) bool
	hang := func(r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name        string
		spoil       answer
		least, most time.Duration // that it takes
		err         string        // "" is none
	}{
		{"well behaved", nil, 0, 0, ""},
		{"silent at first", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n < 3 {
				hang(r)
			}
			return n < 3
		}, 90 * time.Second, 2 * time.Minute, ""},
		{"silent in the middle", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n != 1 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[:blockSize+100])
			_ = http.NewResponseController(w).Flush()
			hang(r)
			return true
		}, 30 * time.Second, 40 * time.Second, ""},
		{"silent for ever", func(w http.ResponseWriter, r *http.Request, n int) bool {
			hang(r)
			return true
		}, 2 * time.Minute, 6 * time.Minute, "nothing came for 30s"},
		{"silent for ever after a while", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 0 {
				hang(r)
			}
			return n > 0
		}, 4 * time.Minute, 6 * time.Minute, "nothing came for 4m"},
		{"cuts each answer after 1000 bytes", func(w http.ResponseWriter, r *http.Request, n int) bool {
			cut(w, r, content, 1000)
			return true
		}, 0, 5 * time.Minute, ""},
		{"cuts each answer before the first byte", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 0 {
				cut(w, r, content, 0)
			}
			return n > 0
		}, 0, time.Minute, fmt.Sprintf("the server ends at byte 0 of %d (5 times", len(content))},
		{"ends before its Content-Length for ever", func(w http.ResponseWriter, r *http.Request, n int) bool {
			var from int
			if fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 0 || from < 5000 {
				cut(w, r, content[:len(content):len(content)], 5000-from)
			} else {
				cut(w, r, content, 0)
			}
			return true
		}, 0, 2 * time.Minute, "the server ends at byte 5000"},
		{"503, then Retry-After in seconds", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n < 2 {
				w.Header().Set("Retry-After", "40")
				http.Error(w, "busy", http.StatusServiceUnavailable)
			}
			return n < 2
		}, 80 * time.Second, 82 * time.Second, ""},
		{"429 and a date to come again", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				w.Header().Set("Retry-After", time.Now().Add(100*time.Second).UTC().Format(http.TimeFormat))
				http.Error(w, "busy", http.StatusTooManyRequests)
			}
			return n == 1
		}, 99 * time.Second, 101 * time.Second, ""},
		{"503 for ever", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 0 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
			}
			return n > 0
		}, 4 * time.Minute, 6 * time.Minute, "503 Service Unavailable; nothing came for"},
		{"come again in a day", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Retry-After", "86400")
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return true
		}, 0, time.Second, "asks to come again in 24h"},
		{"knows no parts", func(w http.ResponseWriter, r *http.Request, n int) bool {
			r.Header.Del("Range")
			return false
		}, 0, 0, ""},
		{"answers another part", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 0 {
				r.Header.Set("Range", "bytes=7-9")
			}
			return false
		}, 0, time.Minute, "bytes from 0 on were asked for, and the server answers with those from 7 on"},
		{"a part without saying which", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, 0, time.Minute, "its Content-Range is"},
		{"a length that is not its range's", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Content-Range", "bytes 0-0/100")
			w.Header().Set("Content-Length", "17")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 17))
			return true
		}, 0, time.Minute, "bytes 0 to 0, and that these are 17"},
		{"no length", func(w http.ResponseWriter, r *http.Request, n int) bool {
			_ = http.NewResponseController(w).Flush()
			return true
		}, 0, time.Minute, "does not say how long"},
		{"packed", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return false
		}, 0, time.Second, "packs what it sends"},
		{"one byte in 20 seconds", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 0 {
				return false
			}
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(content)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			for i := range content {
				if _, err := w.Write(content[i : i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
					break
				}
				select {
				case <-time.After(20 * time.Second):
				case <-r.Context().Done():
					return true
				}
			}
			return true
		}, 5 * time.Minute, 6 * time.Minute, "that is too slow"},
		{"not there", func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.NotFound(w, r)
			return true
		}, 0, time.Second, "there is no such file (404"},
		{"not for us", func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.Error(w, "no", http.StatusForbidden)
			return true
		}, 0, time.Second, "does not give it to us (403"},
		{"redirects twice", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if q := r.URL.RawQuery; len(q) < 2 {
				http.Redirect(w, r, name+"?"+q+"x", http.StatusFound)
				return true
			}
			return false
		}, 0, time.Second, ""},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.Redirect(w, r, fmt.Sprintf("%s?%d", name, n), http.StatusFound)
			return true
		}, 0, time.Second, "redirected 5 times"},
		{"another size from the second request on", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n > 0 {
				cut(w, r, content[:9000], 1<<20)
			}
			return n > 0
		}, 0, time.Second, fmt.Sprintf("train-000.tar has changed since it was indexed: it had %d bytes and has 9000", len(content))},
		{"another version while it is indexed", func(w http.ResponseWriter, r *http.Request, n int) bool {
			w.Header().Set("ETag", fmt.Sprintf(`"version %d"`, n/2))
			cut(w, r, content, 5000)
			return true
		}, 0, time.Minute, "another version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, map[string][]byte{name: content})
				s.spoiled(func(w http.ResponseWriter, r *http.Request, n int) bool {
					if r.URL.Path != name { // of no test split
						return false
					}
					return c.spoil != nil && c.spoil(w, r, len(s.of(name))-1)
				})
				begun := time.Now()
				objects, err := indexed(s.open(t.TempDir(), nil), "http://host"+name)
				took := time.Since(begun)
				if took < c.least || took > c.most {
					t.Errorf("took %v, want %v to %v (%v)", took, c.least, c.most, err)
				}
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "http://host"+name) {
						t.Fatalf("error %v, want the shard and %q", err, c.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				same(t, objects[0], content)
			})
		})
	}
}

// of is the requests of a path.
func (s *site) of(path string) (list []*http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.URL.Path == path {
			list = append(list, r)
		}
	}
	return list
}

// A shard that changes while it is trained on is told, by name, whatever its server says
// of its version; one that is the same under another version goes on.
func TestChangedUnderWay(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(content []byte) []byte
		etag    string
		changed bool
	}{
		{"other bytes, the same version", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "", true},
		{"the same bytes, another version", func(b []byte) []byte { return b }, `"moved"`, false},
		{"shorter", func(b []byte) []byte { return b[:len(b)-512] }, "", true},
		{"gone", func([]byte) []byte { return nil }, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content := tarOf(2, 9)
				s := newSite(t, map[string][]byte{"/train-000.tar": content})
				store := s.open(t.TempDir(), func(o *remote.Options) { o.Bytes = 6 * blockSize }) // too little for all of it
				objects, err := indexed(store, "http://host/train-000.tar")
				if err != nil {
					t.Fatal(err)
				}
				after := c.change(append([]byte(nil), content...))
				if s.set("/train-000.tar", after); after == nil {
					delete(s.files, "/train-000.tar")
				}
				s.etags["/train-000.tar"] = c.etag
				got := make([]byte, len(content))
				_, err = readAll(objects[0], got)
				if !c.changed {
					if err != nil || string(got) != string(content) {
						t.Fatalf("%v", err)
					}
					return
				}
				var changed *remote.ChangedError
				if err == nil || !strings.Contains(err.Error(), "http://host/train-000.tar") || after != nil && !errors.As(err, &changed) {
					t.Fatalf("error %v", err)
				}
			})
		})
	}
}

// readAll reads an object in pieces that a small cache has room for.
func readAll(o *remote.Object, b []byte) (int, error) {
	for at := 0; at < len(b); at += 1000 {
		if _, err := o.ReadAt(b[at:min(len(b), at+1000)], int64(at)); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

// A server whose certificate is of nobody known is not believed, and that is said once,
// at once.
func TestWrongCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the shaken hands that it speaks of
	server.StartTLS()
	defer server.Close()
	store, err := remote.Open(remote.Options{Folder: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = store.Find(context.Background(), server.URL+"/train-000.tar")
	if err == nil || !strings.Contains(err.Error(), "authority that this machine does not know") || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Errorf("error %v", err)
	}
	_, _, err = store.Find(context.Background(), strings.Replace(server.URL, "https", "http", 1)+"/train-000.tar")
	if err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("http to a port of https: %v", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, _, err = store.Find(context.Background(), strings.Replace(plain.URL, "http", "https", 1)+"/train-000.tar")
	if err == nil || !strings.Contains(err.Error(), "is it http://?") {
		t.Errorf("https to a port of http: %v", err)
	}
}

// Nobody is led out of TLS.
func TestNoDowngrade(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	server := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer server.Close()
	store, err := remote.Open(remote.Options{Folder: t.TempDir(), Transport: server.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = store.Find(context.Background(), server.URL+"/train-000.tar"); err == nil || !strings.Contains(err.Error(), "redirects from https to http") {
		t.Errorf("error %v", err)
	}
}

// A host that is not there, or answers nobody, is told soon; one that has answered
// before is waited for.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		begun := time.Now()
		_, err := indexed(s.open(t.TempDir(), nil), "http://nowhere/train-000.tar")
		if err == nil || !strings.Contains(err.Error(), "there is no host nowhere") || time.Since(begun) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}
