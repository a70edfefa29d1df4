package natsring_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
)

// forgeMessages passes on what a NATS server says, the segments among it (messages whose
// payload is as large as theirs) as forge makes them.
func forgeMessages(to, from net.Conn, forge func(payload []byte) []byte) {
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		words := strings.Fields(string(line))
		if len(words) < 4 || words[0] != "MSG" {
			if _, err := to.Write(line); err != nil {
				return
			}
			continue
		}
		n, err := strconv.Atoi(words[len(words)-1])
		if err != nil {
			return
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		whole := slicesOf(line, body, forge)
		if _, err := to.Write(whole); err != nil {
			return
		}
	}
}

// slicesOf is one message, or what became of it; small ones stay.
func slicesOf(line, body []byte, forge func([]byte) []byte) []byte {
	const small = 100
	whole := append(bytes.Clone(line), body...)
	if len(body) < small {
		return whole
	}
	payload := body[:len(body)-2]
	forged := forge(bytes.Clone(payload))
	if len(forged) > len(payload) {
		return append(whole, whole...)
	}
	return append(append(bytes.Clone(line), forged...), "\r\n"...)
}
