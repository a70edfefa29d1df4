package natsring

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"mochi/allreduce"
)

// shake lets two ends greet each other over a connection; each closes it when it is
// refused, as the lane does.
func shake(t *testing.T, taker, dialler func(net.Conn) (net.Conn, error)) (took, dialled error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	if err := errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := taker(a)
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	_, dialled = dialler(b)
	if dialled != nil {
		b.Close()
	}
	took = <-done
	a.Close()
	b.Close()
	return took, dialled
}

func secretOf(t *testing.T, b byte, job string, round int64, self, next string) *secret {
	t.Helper()
	s, err := newSecret(bytes.Repeat([]byte{b}, allreduce.KeyLen), job, round, self, next)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHandshakeOfAPlainRing: the successor in this round with its key, and nobody else; nor
// does it believe another. What was said once is of no use again, nor at another's door.
func TestHandshakeOfAPlainRing(t *testing.T) {
	a := secretOf(t, 1, "j", 3, "a", "b")
	b := secretOf(t, 1, "j", 3, "b", "c")
	var heard bytes.Buffer // what b says
	if took, dialled := shake(t, a.taken, func(c net.Conn) (net.Conn, error) {
		return b.dialled("a")(overheard{c, &heard})
	}); took != nil || dialled != nil {
		t.Fatalf("neighbours: %v, %v", took, dialled)
	}
	for name, dialler := range map[string]func(net.Conn) (net.Conn, error){
		"another key":           secretOf(t, 2, "j", 3, "b", "c").dialled("a"),
		"the round before":      secretOf(t, 1, "j", 2, "b", "c").dialled("a"),
		"another job":           secretOf(t, 1, "k", 3, "b", "c").dialled("a"),
		"not the successor":     secretOf(t, 1, "j", 3, "c", "a").dialled("a"),
		"meant for another":     b.dialled("c"),
		"what was heard before": says(heard.Bytes()),
		"what it is asked":      echo,
	} {
		if took, dialled := shake(t, a.taken, dialler); took == nil || dialled == nil {
			t.Errorf("%s: %v, %v", name, took, dialled)
		}
	}
	for name, taker := range map[string]func(net.Conn) (net.Conn, error){
		"another key":     secretOf(t, 2, "j", 3, "a", "b").taken,
		"an echo":         echoAfter(make([]byte, nonceLen)),
		"its own proof":   reflect,
		"another's, at a": secretOf(t, 1, "j", 3, "c", "b").taken,
	} {
		if _, dialled := shake(t, taker, b.dialled("a")); dialled == nil {
			t.Errorf("a listener with %s is believed", name)
		}
	}
}

// overheard is a connection of which somebody hears what is written.
type overheard struct {
	net.Conn
	to io.Writer
}

func (o overheard) Write(b []byte) (int, error) {
	if _, err := o.to.Write(b); err != nil {
		return 0, err
	}
	return o.Conn.Write(b)
}

// says reads what it is asked, and says something.
func says(what []byte) func(net.Conn) (net.Conn, error) {
	return func(c net.Conn) (net.Conn, error) {
		if _, err := io.ReadFull(c, make([]byte, nonceLen)); err != nil {
			return nil, err
		}
		if _, err := c.Write(what); err != nil {
			return nil, err
		}
		_, err := io.ReadFull(c, make([]byte, 32))
		return c, err
	}
}

// echo says what it is asked, again and again.
func echo(c net.Conn) (net.Conn, error) {
	asked := make([]byte, nonceLen)
	if _, err := io.ReadFull(c, asked); err != nil {
		return nil, err
	}
	if _, err := c.Write(append(asked, asked...)); err != nil {
		return nil, err
	}
	_, err := io.ReadFull(c, asked)
	return c, err
}

// echoAfter asks something, and answers with what it was told.
func echoAfter(asks []byte) func(net.Conn) (net.Conn, error) {
	return func(c net.Conn) (net.Conn, error) {
		if _, err := c.Write(asks); err != nil {
			return nil, err
		}
		told := make([]byte, nonceLen+32)
		if _, err := io.ReadFull(c, told); err != nil {
			return nil, err
		}
		_, err := c.Write(told[:32])
		return c, err
	}
}

// reflect answers with the proof that it was shown.
func reflect(c net.Conn) (net.Conn, error) {
	if _, err := c.Write(make([]byte, nonceLen)); err != nil {
		return nil, err
	}
	told := make([]byte, nonceLen+32)
	if _, err := io.ReadFull(c, told); err != nil {
		return nil, err
	}
	_, err := c.Write(told[nonceLen:])
	return c, err
}
