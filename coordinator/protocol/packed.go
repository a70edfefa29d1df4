package protocol

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// packAbove is from which size on JSON is packed. The messages of all presets
	// are far below it.
	packAbove = 256 << 10

	// packLevel is the fastest one that does not waste a tenth on digits.
	packLevel = 3

	// MaxMessage is how long the JSON of a message may be, in bytes. NATS takes 1 MiB
	// by default; the longest messages that a valid configuration has are long for
	// their digits, and fit when they are packed (config, TestMessagesFit).
	MaxMessage = 8 << 20
)

// ErrTooLong is said of a message that has, or unpacks to, more than MaxMessage bytes.
var ErrTooLong = errors.New("a message longer than any of this protocol")

// Encode is v as JSON, or as gzip of it (RFC 1952) where that is long. The two are
// told apart by their first byte.
func Encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil || len(text) <= packAbove {
		return text, err
	}
	if len(text) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLong, len(text))
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, packLevel)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Decode reads into v what Encode made. It never unpacks more than MaxMessage bytes,
// whatever the data claims.
func Decode(data []byte, v any) error {
	if len(data) > 0 && data[0] == 0x1f {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("packed message: %w", err)
		}
		if data, err = io.ReadAll(io.LimitReader(r, MaxMessage+1)); err != nil {
			return fmt.Errorf("packed message: %w", err)
		}
	}
	if len(data) > MaxMessage {
		return ErrTooLong
	}
	return json.Unmarshal(data, v)
}
