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

// A replica whose shards have the job's names and lengths and another content is refused,
// and the shard is named; where the content of one side is not known, it is not compared.
func TestOtherShardsAreRefused(t *testing.T) {
	for _, c := range []struct{ job, replica, other string }{
		{"a.tar=1 b.tar=2", "a.tar=1 b.tar=2", ""},
		{"a.tar=1 b.tar=2", "a.tar=1 b.tar=3", "b.tar"},
		{"a.tar=1 b.tar=2", "", ""},
		{"", "a.tar=1 b.tar=2", ""},
	} {
		of := func(shards string) protocol.Data { return protocol.Data{Kind: "tar", Digest: "d", Shards: shards} }
		core := &Core{roster: roster.New(), data: of(c.job)}
		r := core.differs(protocol.Version, protocol.Hello{Data: of(c.replica)})
		if c.other == "" && r != nil || c.other != "" && (r == nil || r.Got != c.other || !strings.Contains(r.Hint, "another content")) {
			t.Errorf("%q and %q: %+v", c.job, c.replica, r)
		}
	}
}
