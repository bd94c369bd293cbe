package main

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/seaweedfs/seaweedfs/weed/mount"
	"github.com/seaweedfs/seaweedfs/weed/pb"
	"github.com/seaweedfs/seaweedfs/weed/pb/master_pb"
	"google.golang.org/grpc"
)

const (
	// between two questions to the master.
	every = 2 * time.Second
	// after which the master counts what was sent, if nothing is on its way any more: volume servers
	// report every 5 s. On its way is nothing once the count has stayed the same for a while.
	counted = 12 * time.Second
	quiet   = 6 * time.Second
	// after which the master counts it whatever else is on its way.
	surely = time.Minute
	block  = 4096

	chunkSize    = 2 << 20
	openedChunks = 16
	// what weed keeps of an open file before it begins to send: that many chunks and one more.
	kept = chunkSize * (openedChunks + 1)
)

const full = fuse.Status(syscall.ENOSPC)

// usage of a collection: what the master counts, what was sent since, and what is still kept here.
type usage struct {
	master     pb.ServerAddress
	dial       grpc.DialOption
	collection string
	capacity   uint64

	mutex  sync.Mutex
	stored uint64
	since  time.Time // when the count was last another
	sent   []batch
	kept   map[uint64]uint64 // bytes by open file
}

type batch struct {
	at    time.Time
	bytes uint64
}

// refresh asks the master for the size of the collection's volumes, less what was deleted.
func (u *usage) refresh() error {
	before := time.Now()
	var stored uint64
	err := pb.WithMasterClient(false, u.master, u.dial, false, func(client master_pb.SeaweedClient) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		answer, err := client.VolumeList(ctx, &master_pb.VolumeListRequest{})
		if err == nil {
			stored = size(answer.TopologyInfo, u.collection)
		}
		return err
	})
	if err != nil {
		return err
	}
	u.mutex.Lock()
	defer u.mutex.Unlock()
	if stored != u.stored {
		u.stored, u.since = stored, before
	}
	for len(u.sent) > 0 {
		age := before.Sub(u.sent[0].at)
		if age < counted || (age < surely && before.Sub(u.since) < quiet) {
			break
		}
		u.sent = u.sent[1:]
	}
	return nil
}

// size in bytes; a volume that is stored twice counts once.
func size(topology *master_pb.TopologyInfo, collection string) uint64 {
	largest := map[uint32]uint64{}
	for _, center := range topology.GetDataCenterInfos() {
		for _, rack := range center.RackInfos {
			for _, node := range rack.DataNodeInfos {
				for _, disk := range node.DiskInfos {
					for _, volume := range disk.VolumeInfos {
						if volume.Collection == collection && volume.Size > volume.DeletedByteCount {
							largest[volume.Id] = max(largest[volume.Id], volume.Size-volume.DeletedByteCount)
						}
					}
				}
			}
		}
	}
	var all uint64
	for _, bytes := range largest {
		all += bytes
	}
	return all
}

// follow keeps the count fresh; while the master does not answer, the last count holds, and all that
// was sent since is counted beside it.
func (u *usage) follow() {
	for range time.Tick(every) {
		u.refresh()
	}
}

// sure bytes: those that the master counts, and those that it will.
func (u *usage) sure() uint64 {
	bytes := u.stored
	for _, one := range u.kept {
		bytes += one
	}
	return bytes
}

// all that there may be; what was just sent is perhaps counted by the master as well.
func (u *usage) all() uint64 {
	bytes := u.sure()
	for _, one := range u.sent {
		bytes += one.bytes
	}
	return bytes
}

func (u *usage) send(bytes uint64) {
	now := time.Now()
	if last := len(u.sent) - 1; last >= 0 && now.Sub(u.sent[last].at) < time.Second {
		u.sent[last].bytes += bytes
	} else if bytes > 0 {
		u.sent = append(u.sent, batch{now, bytes})
	}
}

// admit takes note of a write to an open file, or refuses it. Near the limit what was just sent may be
// counted twice; then the write waits for a count that is sure.
func (u *usage) admit(cancel <-chan struct{}, file, bytes uint64) fuse.Status {
	if u.capacity == 0 {
		return fuse.OK
	}
	for deadline := time.Now().Add(surely); ; {
		u.mutex.Lock()
		certain, all := u.sure()+bytes, u.all()+bytes
		if all <= u.capacity {
			held := u.kept[file] + bytes
			u.kept[file] = min(held, kept)
			u.send(held - u.kept[file])
			u.mutex.Unlock()
			return fuse.OK
		}
		u.mutex.Unlock()
		if certain > u.capacity || time.Now().After(deadline) {
			return full
		}
		select {
		case <-cancel:
			return fuse.EINTR
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// flushed notes that nothing of a file is kept any more.
func (u *usage) flushed(file uint64) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	u.send(u.kept[file])
	delete(u.kept, file)
}

// limited is weed's file system with the gate before what adds content.
type limited struct {
	*mount.WFS
	usage *usage
}

func (l *limited) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if status := l.usage.admit(cancel, in.Fh, uint64(len(data))); status != fuse.OK {
		return 0, status
	}
	return l.WFS.Write(cancel, in, data)
}

// Read mends what weed 3.39 does with a part of a file that nothing was written to: its bytes are in the
// buffer, as zeros, but are not counted, so that the file would seem to end there
// (filer.ChunkGroup.ReadDataAt).
func (l *limited) Read(cancel <-chan struct{}, in *fuse.ReadIn, data []byte) (fuse.ReadResult, fuse.Status) {
	result, status := l.WFS.Read(cancel, in, data)
	if status != fuse.OK || result.Size() == len(data) {
		return result, status
	}
	var file fuse.AttrOut
	if l.WFS.GetAttr(cancel, &fuse.GetAttrIn{InHeader: in.InHeader}, &file) != fuse.OK || file.Size <= in.Offset {
		return result, status
	}
	whole := min(uint64(len(data)), file.Size-in.Offset)
	if whole <= uint64(result.Size()) {
		return result, status
	}
	return fuse.ReadResultData(data[:whole]), fuse.OK
}

func (l *limited) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if status := l.usage.admit(cancel, in.FhOut, in.Len); status != fuse.OK {
		return 0, status
	}
	return l.WFS.CopyFileRange(cancel, in)
}

func (l *limited) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	defer l.usage.flushed(in.Fh)
	return l.WFS.Flush(cancel, in)
}

func (l *limited) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer l.usage.flushed(in.Fh)
	return l.WFS.Fsync(cancel, in)
}

func (l *limited) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	l.WFS.Release(cancel, in)
	l.usage.flushed(in.Fh)
}

// StatFs shows the volume's size and what is left of it, as `df` and people expect.
func (l *limited) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	status := l.WFS.StatFs(cancel, in, out)
	if status != fuse.OK || l.usage.capacity == 0 {
		return status
	}
	l.usage.mutex.Lock()
	used := min(l.usage.all(), l.usage.capacity)
	l.usage.mutex.Unlock()
	out.Bsize, out.Frsize = block, block
	out.Blocks = l.usage.capacity / block
	out.Bfree = (l.usage.capacity - used) / block
	out.Bavail = out.Bfree
	return fuse.OK
}
