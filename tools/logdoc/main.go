// Command logdoc writes docs/log.md: every kind of line in log.jsonl, with its
// fields, from the comments and tags of the types behind them. A type is an
// event when it has the methods of event.Event; there is no other list.
//
//	go run mochi/tools/logdoc -o docs/log.md
//
// Its test compares the page with the types.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("o", "", "`FILE` to write; default stdout")
	flag.Parse()
	root, err := moduleRoot()
	var text string
	if err == nil {
		text, err = page(root)
	}
	if err == nil && *out == "" {
		_, err = os.Stdout.WriteString(text)
	} else if err == nil {
		err = os.WriteFile(*out, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "logdoc:", err)
		os.Exit(1)
	}
}

// moduleRoot is the nearest folder above this one that has a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", fmt.Errorf("no go.mod here or above")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
