package natsbus_test

import (
	"context"
	"fmt"
	"io"

	"mochi/coordinator/natsbus"
	"mochi/coordinator/protocol"
)

// A server, both ends of the bus, one message each way.
func Example() {
	ctx := context.Background()
	server, err := natsbus.StartServer(natsbus.ServerOptions{})
	if err != nil {
		panic(err)
	}
	defer server.Shutdown()
	coordinator, err := natsbus.ConnectCoordinator(ctx, natsbus.Options{Job: "demo", Server: server})
	if err != nil {
		panic(err)
	}
	defer coordinator.Close()
	err = coordinator.Serve(
		func() protocol.Status { return protocol.Status{Phase: "waiting"} },
		func(string, int64) error { return nil }, // all checkpoints are wanted
		func(_ context.Context, _ string, _ int64, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		},
		func(name string) (io.ReadSeekCloser, error) { return nil, fmt.Errorf("no checkpoint %s", name) },
	)
	if err != nil {
		panic(err)
	}
	replica, err := natsbus.ConnectReplica(ctx, natsbus.Options{Job: "demo", ID: "b", Server: server})
	if err != nil {
		panic(err)
	}

	if err := replica.Send(ctx, protocol.Message{Hello: &protocol.Hello{ID: "b"}}); err != nil {
		panic(err)
	}
	m := <-coordinator.Messages()
	fmt.Println("coordinator hears from", m.From)
	if err := coordinator.Send(m.From, protocol.Message{Welcome: &protocol.Welcome{Instance: "one"}}); err != nil {
		panic(err)
	}
	fmt.Println("replica hears from", (<-replica.Messages()).Welcome.Instance)
	replica.Close()
	fmt.Println("lost", <-coordinator.Lost())
	// Output:
	// coordinator hears from b
	// replica hears from one
	// lost b
}
