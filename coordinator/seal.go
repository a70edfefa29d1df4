package coordinator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"mochi/coordinator/event"
	"mochi/coordinator/protocol"
	"mochi/coordinator/roster"
)

// What a replica claims to hold is believed when a coordinator of this job has sealed it.
//
// Whoever has a token can say that it holds step 1,000,000, or commits of a later leader:
// by that alone the job must neither end nor lose what it has. So a coordinator seals each
// commit with a key that it shares with those that stand by for it, and with itself after a
// restart (CoreConfig.Key, which follows from --keys or from what its folder has). Replicas
// keep the seal with the commit, and show that of the last one in their Hello. Whoever took
// over a state from others was given the last commit with it (protocol.Round.Last), so
// every state that is held in good faith has one.
//
//   - A sealed head beyond the log proves that the log lost something. It is fetched, or
//     waited for; if nobody has it the coordinator ends, and whoever starts it decides.
//   - What is not sealed proves nothing, and who says it is a replica that holds nothing:
//     it gets the others' state.
//   - Where the log is empty, and there is no checkpoint and no record, what is not sealed
//     is taken from whoever brings it: nothing contradicts it, and it may be all that is
//     left of a job whose coordinator lost its folder and its keys. Sealed commits are
//     preferred. If the commits cannot be had, the claim is dropped.
//
// Where there is no key (one process, --insecure, --nats) everybody is believed.

// sealBytes is how much of HMAC-SHA-256 (RFC 2104) a seal has.
const sealBytes = 16

func sealOf(key, what []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write(what)
	return hex.EncodeToString(m.Sum(nil)[:sealBytes])
}

// seal puts this coordinator's seal on a commit that is to be logged or told.
func (c *Core) seal(commit *protocol.Commit) {
	if commit != nil && len(c.cfg.Key) > 0 {
		commit.Seal = sealOf(c.cfg.Key, commit.Head(0).Sealed())
	}
}

// sealed says whether a coordinator of this job has sealed the end of a history.
func (c *Core) sealed(h *protocol.Head) bool {
	return len(c.cfg.Key) == 0 || h != nil && hmac.Equal([]byte(h.Seal), []byte(sealOf(c.cfg.Key, h.Sealed())))
}

// blank says whether this coordinator knows of no step at all.
func (c *Core) blank() bool {
	return c.history.Last() == nil && c.history.Head() == 0 && c.recorded == 0
}

// proves says whether a replica has shown that the state which it says it holds is of this
// job.
func (c *Core) proves(r *roster.Replica) bool {
	h := r.Hello().Head
	return len(c.cfg.Key) == 0 || h != nil && h.Step >= r.Step() && c.sealed(h)
}

// disbelieve drops what a replica claims and does not prove.
func (c *Core) disbelieve(r *roster.Replica) {
	if !c.doubted[r.ID()] {
		c.doubted[r.ID()] = true
		c.report(event.NotProven{Replica: about(r), Step: r.Step(), Log: c.history.Head()})
	}
	r.Forget()
}
