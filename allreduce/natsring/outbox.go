package natsring

import (
	"encoding/base64"
	"strconv"
)

// outbox is the frame that is being filled: a PUB operation in one piece, since the server
// takes what comes in one piece without a copy of its own.
type outbox struct {
	tap     *tap
	subject string
	frame   []byte // headRoom, a payload, the end of its line
	size    int    // of the payload
}

// headRoom is what may stand before the payload.
func (o *outbox) headRoom() int {
	return len("PUB ") + len(o.subject) + len(" ") + len(letters{}.buffer) + len(" 1000000000\r\n")
}

func (o *outbox) room(n int) []byte {
	head := o.headRoom()
	if whole := head + n + len(crlf); len(o.frame) < whole {
		o.frame = make([]byte, whole)
	}
	o.size = n
	return o.frame[head : head+n]
}

// send writes what was put into the room.
func (o *outbox) send(header []byte) error {
	var room [512]byte
	head := append(room[:0], "PUB "...)
	head = append(head, o.subject...)
	head = append(head, ' ')
	head = base64.RawURLEncoding.AppendEncode(head, header)
	head = append(head, ' ')
	head = strconv.AppendInt(head, int64(o.size), 10)
	head = append(head, crlf...)
	at := o.headRoom()
	end := at + o.size
	copy(o.frame[end:], crlf)
	begin := at - len(head)
	copy(o.frame[begin:], head)
	_, err := o.tap.Write(o.frame[begin : end+len(crlf)])
	return err
}
