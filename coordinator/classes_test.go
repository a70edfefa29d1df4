package coordinator

import (
	"strings"
	"testing"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
	"mochi/coordinator/roster"
)

// A replica that was started with other --classes is refused, by the first as well:
// nobody's data counts then.
func TestOtherClassesAreRefused(t *testing.T) {
	c := &Core{roster: roster.New()}
	hello := protocol.Hello{Data: protocol.Data{Kind: "folder"}}
	if r := c.differs(protocol.Version, hello); r != nil {
		t.Errorf("all classes on both sides: %+v", r)
	}
	c.cfg.Training.Classes = "a,b"
	for _, list := range []string{"", config.ClassesDigest("a,c")} {
		hello.Data.ClassList = list
		if r := c.differs(protocol.Version, hello); r == nil || r.Field != "classes" || !strings.Contains(r.Hint, "--classes") {
			t.Errorf("list %q: %+v", list, r)
		}
	}
	hello.Data.ClassList = config.ClassesDigest("a,b")
	if r := c.differs(protocol.Version, hello); r != nil {
		t.Errorf("the same list: %+v", r)
	}
}
