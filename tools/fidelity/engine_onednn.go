//go:build onednn

package main

import "mochi/model/engine/onednn"

func init() { openFast = onednn.New }
