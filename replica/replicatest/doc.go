// Package replicatest is a small world for one replica: a coordinator in a few
// lines (Script), the ring of a world of one (Ring), a data set in memory
// (Pictures) and images that are ready before they are asked for (Images). The
// tests of a replica use it, and `mochi bench step`, so that what is measured is
// the code that trains.
//
// It does not know package replica: its types have the methods that a replica
// asks for. A whole job in memory, with the real coordinator, is package cluster
// below it.
package replicatest
