//go:build onednn

package engines

import "mochi/model/engine/onednn"

func onednnBuilder() builder { return builder{name: onednn.Name, open: onednn.New} }
