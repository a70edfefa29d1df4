//go:build gpu

package driver

/*
#include <stdlib.h>
#include <stddef.h>
#include "trampoline.h"

#define P void *

static struct {
	int (*begin)(P stream, int mode);
	int (*end)(P stream, P *graph);
	int (*instantiate)(P *exec, P graph, unsigned long long flags);          // CUDA 11.4
	int (*instantiate_old)(P *exec, P graph, P *node, char *log, size_t bytes); // before
	int (*launch)(P exec, P stream);
	int (*nodes)(P graph, P *nodes, size_t *count);
	int (*destroy)(P graph);
	int (*destroy_exec)(P exec);
} md_graph;

// md_graphs fills the table, once, and returns a function that is missing.
static const char *md_graphs(void) {
#define FIND(field, name) \
	if (!(*(P *)&md_graph.field = md_symbol(name))) return name;
	FIND(begin, "cuStreamBeginCapture_v2")
	FIND(end, "cuStreamEndCapture")
	FIND(launch, "cuGraphLaunch")
	FIND(nodes, "cuGraphGetNodes")
	FIND(destroy, "cuGraphDestroy")
	FIND(destroy_exec, "cuGraphExecDestroy")
	*(P *)&md_graph.instantiate = md_symbol("cuGraphInstantiateWithFlags");
	if (!md_graph.instantiate) FIND(instantiate_old, "cuGraphInstantiate_v2")
#undef FIND
	return NULL;
}

static int md_capture_begin(P stream) { return md_graph.begin(stream, 1); } // THREAD_LOCAL

// md_capture_end leaves an executable graph and the number of its nodes.
static int md_capture_end(P stream, P *exec, size_t *count) {
	P graph = NULL;
	*exec = NULL, *count = 0;
	int status = md_graph.end(stream, &graph);
	if (!status && !graph) status = 901; // STREAM_CAPTURE_INVALIDATED
	if (!status) status = md_graph.nodes(graph, NULL, count);
	if (!status) status = md_graph.instantiate ? md_graph.instantiate(exec, graph, 0) : md_graph.instantiate_old(exec, graph, NULL, NULL, 0);
	if (graph) md_graph.destroy(graph);
	return status;
}

static int md_graph_launch(P exec, P stream) { return md_graph.launch(exec, stream); }
static int md_graph_close(P exec) { return md_graph.destroy_exec(exec); }
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// Graph is work that was recorded from a stream, to be put into one again and
// again with a single call. It holds arguments and addresses as they were.
type Graph struct {
	exec  unsafe.Pointer
	Nodes int // launches, copies and what libraries have put in
}

// graphs is which function for graphs the driver lacks.
var graphs = sync.OnceValue(func() error {
	if missing := C.md_graphs(); missing != nil {
		return fmt.Errorf("the driver has no %s", C.GoString(missing))
	}
	return nil
})

// Graphs is nil where the driver has graphs.
func (d *Device) Graphs() error { return graphs() }

// Capture records what record puts into the stream; none of it runs. Until
// record returns, the calling goroutine must not wait for the device, allocate,
// or let the stream wait for what was recorded elsewhere; others may do what
// they like on other streams. The error is record's, or CUDA's where something
// cannot be recorded; the stream is then as it was before.
func (s Stream) Capture(record func() error) (g Graph, err error) {
	if err := graphs(); err != nil {
		return g, err
	}
	if status := C.md_capture_begin(s.Handle()); status != 0 {
		return g, fmt.Errorf("begin a capture: %s", errorText(int(status)))
	}
	err = record()
	var nodes C.size_t
	// Ended in any case, or the stream would stay in capture.
	status := C.md_capture_end(s.Handle(), &g.exec, &nodes)
	if status != 0 {
		err = errors.Join(err, fmt.Errorf("end a capture: %s", errorText(int(status))))
	}
	if err != nil {
		return Graph{}, errors.Join(err, g.Close())
	}
	g.Nodes = int(nodes)
	return g, nil
}

// Made says whether it is of a Capture and not closed.
func (g Graph) Made() bool { return g.exec != nil }

// Launch puts the recorded work into the stream. Only one launch of a graph
// runs at a time; streams other than its last must have been waited for.
func (g Graph) Launch(s Stream) error {
	if status := C.md_graph_launch(g.exec, s.Handle()); status != 0 {
		return fmt.Errorf("launch a graph of %d nodes: %s", g.Nodes, errorText(int(status)))
	}
	return nil
}

// Close frees the graph; a launch that is under way ends first.
func (g *Graph) Close() error {
	if g.exec == nil {
		return nil
	}
	status := C.md_graph_close(g.exec)
	*g = Graph{}
	if status != 0 {
		return fmt.Errorf("destroy a graph: %s", errorText(int(status)))
	}
	return nil
}
