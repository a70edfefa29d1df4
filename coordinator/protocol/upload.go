package protocol

import "errors"

// ErrNotYet is what an upload is answered of which it is not known yet whether it is
// wanted: it is to come again.
var ErrNotYet = errors.New("it is not known yet whether this checkpoint is wanted")
