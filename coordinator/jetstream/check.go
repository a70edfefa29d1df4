package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// needs is how large messages must be allowed to be: what validation of a configuration
// lets through fits, and so do pieces of checkpoints.
const needs = 1 << 20

// mostReplicas is how many copies of the log there are, where NATS has as many servers.
const mostReplicas = 3

// Codes of JetStream's errors that package js has no name for.
const (
	codeUnavailable    = 10008 // JetStream, while its servers elect
	codeNotLeader      = 10009 // likewise
	codeNoPeers        = 10005 // for so many replicas
	codeNoResources    = 10023
	codeNotClustered   = 10074 // more than one replica
	codeWrongLastOther = 10164 // JSErrCodeStreamWrongLastSequence, of a cluster
)

// open finds or makes a job's log and the bucket of its lease. said is what people should
// know of them.
func open(ctx context.Context, nc *nats.Conn, job string, ttl time.Duration) (stream js.Stream, lease js.KeyValue, said []string, err error) {
	at := nc.ConnectedUrlRedacted()
	if most := nc.MaxPayload(); most < needs {
		return nil, nil, nil, fmt.Errorf("the NATS server at %s takes messages of %d bytes at most, and this job's can be %d: set max_payload to 1MB or more in its configuration", at, most, needs)
	}
	api, err := js.New(nc)
	if err == nil {
		_, err = api.AccountInfo(ctx)
	}
	switch {
	case errors.Is(err, js.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return nil, nil, nil, fmt.Errorf("JetStream is not on at %s: the log of the commits needs it; put a jetstream block into the configuration of the NATS servers", at)
	case errors.Is(err, js.ErrJetStreamNotEnabledForAccount):
		return nil, nil, nil, fmt.Errorf("JetStream is not on for this account at %s: the log of the commits needs it; enable it for the account, or use credentials of another one (--nats-creds)", at)
	case err != nil:
		return nil, nil, nil, fmt.Errorf("ask the NATS server at %s for JetStream: %w", at, err)
	}
	clustered := nc.ConnectedClusterName() != ""
	if stream, err = makeLog(ctx, api, job, clustered); err != nil {
		return nil, nil, nil, fmt.Errorf("open the log of job %q in JetStream at %s: %w", job, at, err)
	}
	info := stream.CachedInfo()
	said = judge(info.Config, clustered)
	said = append(said, "whether the NATS servers sync what they write to their disks at once (sync_interval: always) is not known; if they do not, a power cut of all of them may take the last commits, which the replicas bring back")
	config := js.KeyValueConfig{ // on disk: what a single server has in memory, the bucket too, ends with it
		Bucket: fmt.Sprintf("MOCHI_%s_LEADER", job), Storage: js.FileStorage, TTL: ttl, Replicas: info.Config.Replicas,
	}
	if lease, err = api.CreateOrUpdateKeyValue(ctx, config); err != nil {
		return nil, nil, nil, fmt.Errorf("open the lease of job %q in JetStream at %s: %w", job, at, err)
	}
	return stream, lease, said, nil
}

// makeLog returns the stream of a job as it is, or makes it, with as many copies as there
// are servers for.
func makeLog(ctx context.Context, api js.JetStream, job string, clustered bool) (js.Stream, error) {
	name := fmt.Sprintf("MOCHI_%s", job)
	stream, err := api.Stream(ctx, name)
	if !errors.Is(err, js.ErrStreamNotFound) {
		return stream, err
	}
	replicas := 1
	if clustered {
		replicas = mostReplicas
	}
	for ; ; replicas-- {
		stream, err = api.CreateStream(ctx, js.StreamConfig{
			Name: name, Description: "the log of a mochi job", Subjects: []string{logSubject(job) + ">"},
			Storage: js.FileStorage, Replicas: replicas, AllowRollup: true,
		})
		if err == nil || replicas == 1 || !tooMany(err) {
			break
		}
	}
	if errors.Is(err, js.ErrStreamNameAlreadyInUse) { // another coordinator was faster, with another number
		return api.Stream(ctx, name)
	}
	return stream, err
}

func tooMany(err error) bool { return isCode(err, codeNoPeers, codeNoResources, codeNotClustered) }

// passes says whether an error may be gone soon: servers elect, or an answer was lost.
func passes(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || isCode(err, codeUnavailable, codeNotLeader)
}

func isCode(err error, codes ...js.ErrorCode) bool {
	var refused *js.APIError
	return errors.As(err, &refused) && slices.Contains(codes, refused.ErrorCode)
}

// judge says what of a stream is less than it should be.
func judge(c js.StreamConfig, clustered bool) (said []string) {
	if c.Storage != js.FileStorage {
		said = append(said, fmt.Sprintf("warning: stream %s is kept in memory: when its NATS servers end, the commits are lost. Stop the job, remove the stream (nats stream rm %s) and start the coordinators again: they make it on disk, and the replicas bring the commits back", c.Name, c.Name))
	}
	if clustered && c.Replicas < mostReplicas {
		said = append(said, fmt.Sprintf("warning: stream %s has %s, and NATS is a cluster: without the server that has it no step is committed; nats stream edit %s --replicas 3 makes more, where there are servers for them", c.Name, copies(c.Replicas), c.Name))
	}
	if !c.AllowRollup || c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxAge > 0 {
		said = append(said, fmt.Sprintf("warning: stream %s has limits (messages %d, bytes %d, age %v, rollup %v) that mochi does not set: commits may be lost by them", c.Name, c.MaxMsgs, c.MaxBytes, c.MaxAge, c.AllowRollup))
	}
	return said
}

func copies(n int) string {
	if n == 1 {
		return "one copy"
	}
	return fmt.Sprintf("%d copies", n)
}
