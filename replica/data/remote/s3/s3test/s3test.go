// Package s3test runs a real S3 server (versitygw, as tools/s3server builds it) for
// tests. Where there is none, a test that asks for it is left out, and says so.
package s3test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The keys of the server; Start puts them into the environment.
const (
	KeyID  = "mochi-test-key"
	Secret = "mochi-test-secret"
)

// program is the server's, "" where there is none.
func program() string {
	if dir, err := os.Getwd(); err == nil {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			path := filepath.Join(dir, "bin", "s3server")
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	path, err := exec.LookPath("versitygw")
	if err != nil {
		return ""
	}
	return path
}

// Start starts a server until the end of the test, and returns the folder whose folders
// are its buckets. The environment says where it is and what its keys are.
func Start(t *testing.T) (root string) {
	t.Helper()
	path := program()
	if path == "" {
		t.Skip("left out: there is no S3 server here; tools/s3server/build.sh builds one")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	root = t.TempDir()
	// Its metadata lie in extended attributes otherwise, which not all file systems have.
	c := exec.Command(path, "--access", KeyID, "--secret", Secret, "--port", address, "--quiet", "posix", "--sidecar", t.TempDir(), root)
	c.Stdout, c.Stderr = t.Output(), t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		if err := <-ended; err == nil {
			t.Error("the S3 server ended by itself")
		}
	})
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": KeyID, "AWS_SECRET_ACCESS_KEY": Secret, "AWS_ENDPOINT_URL": "http://" + address,
		"AWS_ENDPOINT_URL_S3": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_SHARED_CREDENTIALS_FILE": filepath.Join(root, "none"),
	} {
		t.Setenv(name, value)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return root
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the S3 server ended: %v", err)
		case <-deadline:
			t.Fatal("the S3 server does not listen")
		case <-tick.C:
		}
	}
}
