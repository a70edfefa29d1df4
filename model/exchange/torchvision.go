package exchange

import (
	"io"

	"mochi/model/exchange/torch"
)

// Torchvision writes the backbone's state_dict as torch.save does: for
// torchvision's model of the same name, whose fc is torch.nn.Identity().
func Torchvision(w io.Writer, e Encoder) error {
	var s torch.Saver
	return s.Save(w, s.StateDict(e.StateDict("", false)))
}
