package cli

import (
	"encoding/json"
	"fmt"
	"io"
)

// PrintJSON writes v as one line.
func PrintJSON(out io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}
