package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

const (
	patience = 20 * time.Second
	// A mount whose server hangs would hang whoever asks for it.
	glance = 5 * time.Second
)

// request of the node's part: a mount to make, to show at another place, or to end.
type request struct {
	Target     string
	Source     string            // of a second place
	ReadOnly   bool              // of a second place
	Attributes map[string]string // of a mount: what the volume says
}

type mounter struct {
	kubelet, filer, master string
	mutex                  sync.Mutex
}

func socket(kubelet string) string {
	return filepath.Join(kubelet, "plugins", driver, "mounter.sock")
}

// serveMounts answers requests on a socket of the node that only root reaches.
func serveMounts(ctx context.Context, kubelet, filer, master string) error {
	m := &mounter{kubelet: kubelet, filer: filer, master: master}
	listener, err := listen(socket(kubelet))
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: glance}
	for path, do := range map[string]func(request) error{"/mount": m.mount, "/show": m.show, "/end": m.end} {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			var asked request
			err := json.NewDecoder(r.Body).Decode(&asked)
			if err == nil && !strings.HasPrefix(filepath.Clean(asked.Target), kubelet+"/") {
				err = fmt.Errorf("%s is outside of %s", asked.Target, kubelet)
			}
			if err == nil {
				m.mutex.Lock()
				err = do(asked)
				m.mutex.Unlock()
			}
			if err != nil {
				klog.ErrorS(err, "Refused", "what", path, "target", asked.Target)
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	go func() { <-ctx.Done(); server.Close() }()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	os.Remove(path)
	return net.Listen("unix", path)
}

// live tells whether a mount of ours is at the path and answers. A dead one is taken away.
func live(path string) (bool, error) {
	answer := make(chan error, 1)
	var stat unix.Statfs_t
	go func() { answer <- unix.Statfs(path, &stat) }()
	select {
	case err := <-answer:
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			klog.InfoS("Taking a dead mount away", "path", path, "why", err)
			return false, unix.Unmount(path, unix.MNT_DETACH)
		}
		return stat.Type == unix.FUSE_SUPER_MAGIC, nil
	case <-time.After(glance):
		return false, fmt.Errorf("the mount at %s does not answer within %v", path, glance)
	}
}

// arguments of weed-mount, from the attributes that the official driver knows.
func (m *mounter) arguments(target string, attributes map[string]string) []string {
	given := []string{
		"-filer", m.filer, "-master", m.master, "-dir", target,
		"-cache-dir", "/cache", "-path", attributes["path"], "-collection", attributes["collection"],
	}
	for name, flag := range map[string]string{
		"volumeCapacity": "-capacity", "replication": "-replication", "diskType": "-disk",
		"dataCenter": "-data-center", "cacheCapacityMB": "-cache-mb", "uidMap": "-uid-map", "gidMap": "-gid-map",
	} {
		if value := attributes[name]; value != "" {
			given = append(given, flag, value)
		}
	}
	return given
}

// mount starts the process that holds a volume, and waits until it is there.
func (m *mounter) mount(asked request) error {
	if there, err := live(asked.Target); there || err != nil {
		return err
	}
	if asked.Attributes["path"] == "" {
		return errors.New("the volume has no attribute path")
	}
	if err := os.MkdirAll(asked.Target, 0o750); err != nil {
		return err
	}
	command := exec.Command("/weed-mount", m.arguments(asked.Target, asked.Attributes)...)
	said, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan string, 1)
	go func() {
		last := "it said nothing"
		for lines := bufio.NewScanner(said); lines.Scan(); {
			klog.InfoS(lines.Text(), "volume", asked.Attributes["path"])
			if why, its := strings.CutPrefix(lines.Text(), "weed-mount: "); its {
				last = why
			}
		}
		klog.InfoS("A mount has ended", "volume", asked.Attributes["path"], "how", command.Wait())
		ended <- last
	}()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case last := <-ended:
			return errors.New(last)
		case <-time.After(50 * time.Millisecond):
			if there, err := live(asked.Target); there || err != nil {
				return err
			}
		}
	}
	command.Process.Kill()
	return fmt.Errorf("%s was not mounted within %v", asked.Attributes["path"], patience)
}

// show binds a mount to a second place, where a pod has it.
func (m *mounter) show(asked request) error {
	if there, err := live(asked.Source); err != nil {
		return err
	} else if !there {
		return fmt.Errorf("nothing is mounted at %s", asked.Source)
	}
	if there, err := live(asked.Target); there || err != nil {
		return err
	}
	if err := os.MkdirAll(asked.Target, 0o750); err != nil {
		return err
	}
	if err := unix.Mount(asked.Source, asked.Target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if asked.ReadOnly {
		return unix.Mount("", asked.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	}
	return nil
}

// end unmounts; the process of a mount ends by itself when the last place is gone.
func (m *mounter) end(asked request) error {
	for {
		err := unix.Unmount(asked.Target, 0)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTCONN) {
			err = unix.Unmount(asked.Target, unix.MNT_DETACH)
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // it is no mount any more
		}
		if err != nil {
			return err
		}
	}
	if err := os.Remove(asked.Target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
