import logging, threading, time
from django.conf import settings
from confluent_kafka import Producer
from eventbus.errors import DeliveryError
logger=logging.getLogger(__name__)
class EventProducer:
    def __init__(self):
        self._p=Producer({"bootstrap.servers":settings.KAFKA_BOOTSTRAP_SERVERS,"acks":"all","enable.idempotence":True,"partitioner":"murmur2_random","linger.ms":1})
        self._stop=False
        threading.Thread(target=self._poll,daemon=True).start()
    def _poll(self):
        while not self._stop: self._p.poll(0.2)
    def send(self,m):
        try: self._p.produce(settings.KAFKA_PREFIX+m.topic,key=m.key,value=m.value,headers=list(m.headers)); return True
        except BufferError: return False
    def send_all(self,ms,*,timeout):
        left=list(ms); bad=[]; n=[0]
        def done(err,msg,m): 
            n[0]+=1
            if err: bad.append(m)
        for m in left: self._p.produce(settings.KAFKA_PREFIX+m.topic,key=m.key,value=m.value,headers=list(m.headers),on_delivery=lambda e,x,m=m:done(e,x,m))
        end=time.time()+timeout
        while n[0]<len(left) and time.time()<end: time.sleep(0.005)
        if bad or n[0]<len(left): raise DeliveryError(bad,"x")
    def close(self,timeout): 
        r=self._p.flush(timeout); self._stop=True; return r
