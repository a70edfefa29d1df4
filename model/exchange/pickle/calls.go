package pickle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// CodeError says that a pickle would run code.
type CodeError struct{ Global Global }

func (e *CodeError) Error() string {
	return fmt.Sprintf("it would run code when Python loads it: it calls %s", e.Global)
}

// calls are globals, what is made by calling them, and what is told to what was
// made.
func (m *machine) calls(op byte) (bool, error) {
	switch op {
	case opGlobal:
		module, err := m.line()
		if err != nil {
			return true, err
		}
		name, err := m.line()
		if err != nil {
			return true, err
		}
		return true, m.global(module, name)
	case opStackGlobal:
		name, err := m.pop()
		if err != nil {
			return true, err
		}
		module, err := m.pop()
		if err != nil {
			return true, err
		}
		n, isName := name.(string)
		mod, isModule := module.(string)
		if !isName || !isModule {
			return true, errors.New("a global whose name is no text")
		}
		return true, m.global(mod, n)
	case opReduce, opNewObj:
		args, err := m.pop()
		if err != nil {
			return true, err
		}
		class, err := m.pop()
		if err != nil {
			return true, err
		}
		return true, m.call(class, args)
	case opNewObjEx:
		if _, err := m.pop(); err != nil { // arguments by name
			return true, err
		}
		return m.calls(opNewObj)
	case opObj, opInst:
		return true, m.instance(op)
	case opBuild:
		state, err := m.pop()
		if err != nil {
			return true, err
		}
		to, err := m.top()
		if err != nil {
			return true, err
		}
		if o, ok := to.(*Object); ok {
			o.State = state
		} // a dict's or a tensor's attributes say nothing that is needed
		return true, nil
	case opPersID, opBinPersID:
		return true, m.persistent(op)
	}
	return false, nil
}

// global keeps a name; names whose call is code end the reading.
func (m *machine) global(module, name string) error {
	g := Global{module, name}
	if g.code() {
		return &CodeError{g}
	}
	return m.push(g)
}

// instance is the old form of a call: the class stands below the arguments
// (OBJ), or in the text (INST).
func (m *machine) instance(op byte) error {
	if op == opInst {
		if _, err := m.calls(opGlobal); err != nil {
			return err
		}
		class, err := m.pop()
		if err != nil {
			return err
		}
		args, err := m.toMark()
		if err != nil {
			return err
		}
		return m.call(class, Tuple(args))
	}
	items, err := m.toMark()
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return errEmpty
	}
	return m.call(items[0], Tuple(items[1:]))
}

// call keeps what a call would be, or what the hook knows it gives.
func (m *machine) call(class, args any) error {
	g, isGlobal := class.(Global)
	if !isGlobal {
		// Of an object that is not known: it could only be code.
		return errors.New("it calls something that is no global")
	}
	list, isTuple := args.(Tuple)
	if !isTuple {
		return fmt.Errorf("it calls %s with a %T", g, args)
	}
	if g == OrderedDict {
		return m.ordered(list)
	}
	return m.known(&Object{Class: g, Args: list})
}

// ordered is OrderedDict() or OrderedDict([(key, value), …]), the form of
// Python 2.
func (m *machine) ordered(args Tuple) error {
	d := &Dict{Ordered: true}
	if len(args) > 0 {
		pairs, isList := args[0].(*List)
		if !isList {
			return errors.New("an OrderedDict of no list")
		}
		for _, p := range pairs.Items {
			var key, value any
			switch p := p.(type) {
			case Tuple:
				if len(p) == 2 {
					key, value = p[0], p[1]
				}
			case *List:
				if len(p.Items) == 2 {
					key, value = p.Items[0], p.Items[1]
				}
			}
			if key == nil {
				return errors.New("an OrderedDict of what are no pairs")
			}
			d.Set(key, value)
		}
		m.objects += len(pairs.Items)
	}
	return m.push(d)
}

func (m *machine) persistent(op byte) error {
	var id any
	var err error
	if op == opPersID {
		id, err = m.line()
	} else {
		id, err = m.pop()
	}
	if err != nil {
		return err
	}
	return m.known(Persistent{id})
}

// known pushes what the hook makes of a value.
func (m *machine) known(v any) error {
	if m.Hook != nil {
		var err error
		if v, err = m.Hook(v); err != nil {
			return err
		}
	}
	return m.push(v)
}

// code says whether a global is one of those that hostile pickles call: whatever
// Python's own library has, but its plain data, and what compiles or loads code
// in packages that stand beside PyTorch. Others are kept as names. Nothing is
// ever called; this is to tell people what a file was made for.
func (g Global) code() bool {
	top, _, _ := strings.Cut(g.Module, ".")
	switch top {
	case "builtins", "__builtin__":
		return !slices.Contains(dataTypes, g.Name)
	case "types":
		return g.Name != "SimpleNamespace" && g.Name != "NoneType"
	case "torch":
		return slices.Contains(torchCode, g.Module) || g.Module == "torch" && slices.Contains([]string{"load", "compile", "classes", "ops"}, g.Name)
	case "numpy":
		return strings.HasPrefix(g.Module, "numpy.testing") || strings.HasPrefix(g.Module, "numpy.f2py") || strings.HasPrefix(g.Module, "numpy.distutils")
	}
	return slices.Contains(codeModules, top)
}

// dataTypes are the builtins that hold data.
var dataTypes = strings.Fields("set frozenset list dict tuple int long float complex str unicode bytes bytearray bool range xrange slice object NoneType Ellipsis NotImplemented")

var torchCode = strings.Fields("torch.hub torch.jit torch.serialization torch.package torch.utils.cpp_extension torch.distributed.rpc torch.multiprocessing torch.utils.model_zoo")

// codeModules are the modules of Python's library whose functions do something,
// and packages that install others. What is not here is data: argparse,
// collections, copyreg, datetime, decimal, enum, fractions, functools, pathlib,
// random, types.SimpleNamespace, uuid, _codecs and the like.
var codeModules = strings.Fields(`
_aix_support _asyncio _bootsubprocess _ctypes _frozen_importlib _frozen_importlib_external _imp _io _multiprocessing _operator
_osx_support _overlapped _pickle _posixshmem _posixsubprocess _pyio _signal _socket _ssl _sqlite3 _thread _winapi aifc antigravity asynchat
asyncio asyncore atexit bdb cProfile cgi cgitb cmd code codeop commands compileall concurrent contextlib ctypes curses dbm dis distutils
doctest ensurepip faulthandler fcntl fileinput ftplib gc getpass glob gzip http idlelib imaplib imghdr imp importlib inspect io lib2to3
linecache mailbox mailcap marshal mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath operator os
ossaudiodev pdb pickle pickletools pip pipes pkg_resources pkgutil platform poplib posix posixpath pprint profile pstats pty pwd py_compile
pyclbr pydoc resource rlcompleter runpy sched select selectors setuptools shelve shlex shutil signal site smtpd smtplib sndhdr socket
socketserver spwd sqlite3 ssl subprocess symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios threading timeit tkinter
trace traceback tty turtle unittest urllib urllib2 venv webbrowser winreg wsgiref xmlrpc zipapp zipfile zipimport`)
