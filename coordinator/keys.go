package coordinator

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"mochi/coordinator/protocol"
	"mochi/coordinator/protocol/config"
)

// keys are those of the rounds of a job whose rings are plain. They follow from a secret
// of this run of the coordinator and the number of the round, so that the core, which is
// the same each time it is run, need not know them, and whoever is told of a round again is
// told the same. nil: the job's rounds have none.
type keys struct {
	secret     [sha256.Size]byte
	last, told *protocol.Round // without and with its key: a bus encodes one that goes to many once
}

func newKeys(job config.Job) *keys {
	if job.Security() != config.SecurityPlain {
		return nil
	}
	k := &keys{}
	rand.Read(k.secret[:]) // never fails
	return k
}

// with is a round as somebody is told it: members with its key, others without.
func (k *keys) with(r *protocol.Round, to string) *protocol.Round {
	if k == nil || !slices.ContainsFunc(r.Members, func(m protocol.Member) bool { return m.ID == to }) {
		return r
	}
	if r == k.last {
		return k.told
	}
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(r.Round)))
	told := *r
	told.Key = mac.Sum(nil)
	k.last, k.told = r, &told
	return k.told
}
